// The checks of a job's transactions, and worlds in which one of them is left out.
import type { RunStep } from '../../../src/lock/transactions.ts';
import { explore } from './explore.ts';
import type { TxName, World } from './world.ts';

/** What a step proves, by its verb and the last part of its key; undefined: nothing. */
export function checkOf({ operation: { verb, key } }: RunStep): string | undefined {
  if (!['check-index', 'check-session', 'check-not-exists', 'cas', 'delete-cas'].includes(verb))
    return undefined;
  return `${verb} ${nameOf(key)}`;
}

function nameOf(key: string): string {
  if (key.includes('/spec/')) return 'spec';
  if (key.includes('/inbox/')) return 'pointer';
  if (key.includes('/targets/')) return 'list';
  if (key.includes('/nodes/')) return 'target';
  return key.split('/').at(-1) ?? '';
}

/** A check goes; a write that checks is done all the same. */
function weaken(step: RunStep, checks: ReadonlySet<string>): readonly RunStep[] {
  const check = checkOf(step);
  if (check === undefined || !checks.has(check)) return [step];
  const { operation, means } = step;
  const { key } = operation;
  if (operation.verb === 'cas') return [{ means, operation: { verb: 'set', key, value: operation.value } }];
  return operation.verb === 'delete-cas' ? [{ means, operation: { verb: 'delete', key } }] : [];
}

/** The same world, where these transactions are sent without these checks. */
export function without(world: World, names: readonly TxName[], checks: readonly string[]): World {
  const left = new Set(checks);
  return {
    ...world,
    mutate: (name, steps) => (names.includes(name) ? steps.flatMap((step) => weaken(step, left)) : steps),
  };
}

/** Every check that is sent in this world, as `transaction: check`. */
export function checksOf(world: World): readonly string[] {
  const found = new Set<string>();
  const mutate: NonNullable<World['mutate']> = (name, steps) => {
    for (const step of steps) {
      const check = checkOf(step);
      if (check !== undefined) found.add(`${name}: ${check}`);
    }
    return steps;
  };
  explore({ ...world, mutate }, { maxStates: 500 });
  return [...found];
}
