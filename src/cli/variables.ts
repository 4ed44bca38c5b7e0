/** Finds RUNLOCK_ variables that nothing reads, because a misspelled name would silently have no effect. */
import { nearest } from '../text/nearest.ts';
import type { Env } from './command.ts';
import { LONG_OPTIONS, variableOfOption } from './values.ts';

/** Variables that are no options: those that a run sets for its command, and those of the package's unit and the tests. */
const OTHERS = /^RUNLOCK_(?:RUN_\w+|TASK|FENCING_TOKEN|TURN_DIR|COMMAND|BIN|VERSION)$/;

export interface StrayVariable {
  readonly name: string;
  /** The correct name that was probably meant. */
  readonly meant?: string;
}

/** Sorted by name; empty variables count as not set. */
export function strayVariables(env: Env): readonly StrayVariable[] {
  const names = Object.keys(env).filter((name) => name.startsWith('RUNLOCK_') && env[name] !== '');
  if (names.length === 0) return [];
  const options = LONG_OPTIONS.map(variableOfOption);
  return names
    .filter((name) => !options.includes(name) && !OTHERS.test(name))
    .sort()
    .map((name) => {
      const meant = nearestOption(name, options);
      return { name, ...(meant !== undefined && { meant }) };
    });
}

/** Compares names without `RUNLOCK_`; with the prefix all names would be similar. */
function nearestOption(name: string, options: readonly string[]): string | undefined {
  const own = (each: string) => each.slice('RUNLOCK_'.length);
  const meant = nearest(own(name).toUpperCase(), options.map(own));
  return meant === undefined ? undefined : `RUNLOCK_${meant}`;
}
