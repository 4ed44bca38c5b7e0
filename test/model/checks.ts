/** Every check of every transaction, found in the transactions of src/lock themselves, and how to leave it out. */
import type { Claim } from '../../src/lock/records.ts';
import type { RunStep } from '../../src/lock/transactions.ts';
import { stepsOf } from './transmit.ts';
import { keys, secondKeys, stateKeys } from './world.ts';
import type { MutantStep, Sender, Tx, TxName, World } from './world.ts';

const by: Sender = { node: 'n0', run: 'r0', session: 's0', hold: 'forever', slots: 1, aheadMs: 0 };
const claim: Claim = {
  ...{ node: 'n0', state: 'failed', run: 'r0', since: '', command: 'c', hold: 'forever' },
  ...{ pid: 1, startTime: '1', bootId: 'b' },
};
const seen = { by, slot: 0, index: 1 };
const second = { session: 's1', index: 1 };

/** One of each, with everything that it can have. */
const SAMPLES: readonly Tx[] = [
  { name: 'enqueue', by },
  { name: 'grant', by, slot: 0 },
  { name: 'takeOver', ...seen },
  { name: 'comeBack', ...seen },
  { name: 'moveDown', ...seen, from: 1 },
  { name: 'moveDown', ...seen, from: 1, strayLock: 1 },
  { name: 'markNode', ...seen },
  { name: 'takeBack', ...seen, claim },
  { name: 'start', ...seen, condition: 1, root: 'r0', second },
  { name: 'finish', ...seen, second },
  { name: 'finish', ...seen, same: 1, during: 1 },
  { name: 'claimAgain', by, slot: 0, claim },
  { name: 'release', ...seen, outcome: 'succeeded' },
  { name: 'release', ...seen, outcome: 'failed', claim },
  { name: 'recordAlone', ...seen, outcome: 'lost', claimIndex: 1 },
  { name: 'keep', ...seen, claim },
  { name: 'endHeld', ...seen, outcome: 'succeeded' },
  { name: 'endHeld', ...seen, outcome: 'failed', claim },
  { name: 'endHeld', ...seen, outcome: 'failed', claim, strayLock: 1 },
  { name: 'abandon', ...seen, claim },
  { name: 'abandon', ...seen, claim, strayLock: 1 },
  { name: 'notice', ...seen, claim },
  { name: 'notice', ...seen, claim, strayLock: 1 },
  { name: 'changeClaim', ...seen, claim },
  { name: 'removeSeen', ...seen, key: keys.owner(0) },
  { name: 'removeSeen', ...seen, key: keys.freezes[0] ?? '' },
  { name: 'clearClaim', ...seen },
  { name: 'clearClaim', ...seen, strayLock: 1 },
  { name: 'drop', ...seen },
  { name: 'drop', ...seen, strayLock: 1 },
];

/** What a step refuses, as people read it; undefined for one that refuses nothing. */
export function checkOf({ operation }: RunStep): string | undefined {
  const { verb, key } = operation;
  const refusesNothing = verb === 'set' || verb === 'delete' || verb === 'get-tree';
  return refusesNothing ? undefined : `${verb} ${keyName(key)}`;
}

function keyName(key: string): string {
  const state = Object.entries(stateKeys).find(([, name]) => name === key);
  if (state) return `.state/${state[0]}`;
  if (key.startsWith(keys.queuePrefix)) return '.queue/<me>';
  if (key === keys.node('n0')) return '.node/<me>';
  if (key === keys.run('n0')) return '.runs/<me>';
  if (key === keys.freezes[0]) return '.freeze';
  if (key === keys.freezes[1]) return '.freeze above';
  if (key.startsWith(secondKeys.prefix)) return `second ${key.split('/').at(-1) ?? ''}`;
  return `${key.startsWith(keys.slot(0)) ? '' : 'old '}${key.split('/').at(-1) ?? ''}`;
}

/** Every check by its transaction, in the order of src/lock/transactions.ts. */
export function allChecks(): ReadonlyMap<TxName, readonly string[]> {
  const found = new Map<TxName, string[]>();
  for (const tx of SAMPLES) {
    const known = found.get(tx.name) ?? [];
    for (const step of stepsOf(tx)) {
      const check = checkOf(step);
      if (check !== undefined && !known.includes(check)) known.push(check);
    }
    found.set(tx.name, known);
  }
  return found;
}

/** The same world, where one transaction is sent without these checks. */
export function without(world: World, name: TxName, checks: readonly string[]): World {
  const names = new Set(checks);
  const mutate = (sent: TxName, steps: readonly RunStep[]): readonly MutantStep[] =>
    sent === name ? steps.flatMap((step) => weaken(step, names, oldSlot(sent, steps))) : steps;
  return { ...world, mutate };
}

/** A check goes; a write that checks is done all the same. */
function weaken(step: RunStep, names: ReadonlySet<string>, old: string | undefined): MutantStep[] {
  const check = checkOf({ ...step, operation: anyNode(step.operation, old) });
  if (check === undefined || !names.has(check)) return [step];
  const { operation, means } = step;
  const { key } = operation;
  if (operation.verb === 'lock') return [{ means, operation: { ...operation, verb: 'seize' } }];
  if (operation.verb === 'cas') return [{ means, operation: { verb: 'set', key, value: operation.value } }];
  return operation.verb === 'delete-cas' ? [{ means, operation: { verb: 'delete', key } }] : [];
}

/** Where the claim stood that moves down: the higher of the two slots. */
function oldSlot(name: TxName, steps: readonly RunStep[]): string | undefined {
  if (name !== 'moveDown') return undefined;
  const slots = steps.flatMap(({ operation: { key } }) => /\/\.slot\/(\d+)\//.exec(key)?.[1] ?? []);
  return keys.slot(Math.max(...slots.map(Number)));
}

/** The samples are those of one node and one slot, and of one above it that a claim moves down from. */
function anyNode(operation: RunStep['operation'], old: string | undefined): RunStep['operation'] {
  const { key } = operation;
  if (key.startsWith(keys.node(''))) return { ...operation, key: keys.node('n0') };
  if (key.startsWith(keys.run(''))) return { ...operation, key: keys.run('n0') };
  if (!key.startsWith(keys.slotPrefix)) return operation;
  const slot = old !== undefined && key.startsWith(old) ? keys.slot(1) : keys.slot(0);
  return { ...operation, key: `${slot}${key.split('/').at(-1) ?? ''}` };
}
