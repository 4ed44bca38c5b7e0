/** RUNLOCK_ variables that nothing reads: a name that is misspelled would change nothing, without a word. */
import { nearest } from '../text/nearest.ts';
import type { Env } from './command.ts';
import { LONG_OPTIONS, variableOfOption } from './values.ts';

/** Those that are no option: what a run gives its command, what the package's unit and the tests take, and a site's own. */
const OTHERS = /^RUNLOCK_(?:RUN_\w+|FENCING_TOKEN|COMMAND|BIN|VERSION)$/;

export interface StrayVariable {
  readonly name: string;
  /** The right name that was probably meant. */
  readonly meant?: string;
}

/** In the order of their names; without one that is set to nothing, which is as good as not set. */
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

/** Of the names behind `RUNLOCK_`: with it any two would be near. */
function nearestOption(name: string, options: readonly string[]): string | undefined {
  const own = (each: string) => each.slice('RUNLOCK_'.length);
  const meant = nearest(own(name).toUpperCase(), options.map(own));
  return meant === undefined ? undefined : `RUNLOCK_${meant}`;
}
