/** What each check of each transaction is good for: the promise that breaks without it, or why none does. */
import { without } from './checks.ts';
import { configurations, toWorld } from './configurations.ts';
import type { ConfigurationName } from './configurations.ts';
import { explore } from './explore.ts';
import type { RunStep } from '../../src/lock/transactions.ts';
import { handSet, keys, secondKeys, stateKeys } from './world.ts';
import type { TxName } from './world.ts';

export interface Row {
  readonly tx: TxName;
  /** Left out together. */
  readonly checks: readonly string[];
  /** The configuration in which the promise breaks; or those in which, all visited, none does. */
  readonly in: readonly ConfigurationName[];
  /** How the broken promise begins. */
  readonly breaks?: string;
  /** Why nothing breaks. */
  readonly why?: string;
}

const OWNER = ['check-index owner', 'cas owner'];
const NO_OWNER = ['check-not-exists owner', 'cas owner'];
const LOCK_SEEN = ['check-index lock', 'delete-cas lock'];
const SAME = 'each of the two says what the other says; without both see below';
const FIRST = 'only the first in the queue takes a slot, and it has just seen that this one is free';
const RETURNS = 'a run that takes its lock back changes its claim too (ADR 10), and that is seen';
const UNCHANGED = 'a claim that has not changed is still this run’s';
const BUSY =
  'the claim says so too; the mark makes a second run of a node busy at once, instead of first in the queue';
const STRAY = 'a run that takes the lock also writes the claim, and that is seen';

const row = (tx: TxName, checks: readonly string[], where: ConfigurationName, promise: string): Row => ({
  ...{ tx, checks, in: [where], breaks: promise },
});
const not = (tx: TxName, checks: readonly string[], where: ConfigurationName, why: string): Row => ({
  ...{ tx, checks, in: [where], why },
});

const TABLE: readonly Row[] = [
  not('enqueue', ['lock .node/<me>'], 'same node', BUSY),
  not('enqueue', ['check-not-exists .queue/<me>'], 'sessions', 'it is never sent twice with one session'),
  not('enqueue', ['lock .queue/<me>'], 'sessions', 'only its own session ever locks this key'),
  row('grant', ['check-session .queue/<me>'], 'late', 'promise 3'),
  row('grant', ['check-not-exists .freeze'], 'freeze', 'freeze'),
  row('grant', ['check-not-exists .freeze above'], 'freeze', 'freeze'),
  not('grant', ['check-not-exists owner'], 'sessions', SAME),
  not('grant', ['cas owner'], 'sessions', SAME),
  not('grant', NO_OWNER, 'sessions', FIRST),
  not('grant', ['lock lock'], 'sessions', FIRST),
  row('grant', [...NO_OWNER, 'lock lock'], 'claim and lock deleted', 'promise 2'),
  not(
    'takeOver',
    ['check-session .queue/<me>'],
    'returns, finite',
    'a run that took the slot over has changed the claim',
  ),
  row('takeOver', ['check-not-exists .freeze'], 'freeze, finite', 'freeze'),
  row('takeOver', ['check-not-exists .freeze above'], 'freeze, finite', 'freeze'),
  not('takeOver', ['check-index owner'], 'returns, finite', SAME),
  not('takeOver', ['cas owner'], 'returns, finite', SAME),
  row('takeOver', OWNER, 'returns, finite', 'promise 2'),
  not('takeOver', ['lock lock'], 'none', RETURNS),
  row('comeBack', ['check-not-exists .freeze'], 'freeze, return', 'freeze'),
  row('comeBack', ['check-not-exists .freeze above'], 'freeze, return', 'freeze'),
  not('comeBack', ['lock .node/<me>'], 'same node', BUSY),
  not('comeBack', ['check-index owner'], 'returns', SAME),
  not('comeBack', ['cas owner'], 'returns', SAME),
  row('comeBack', OWNER, 'returns', 'promise 2'),
  not('comeBack', ['lock lock'], 'same node', RETURNS),
  row('moveDown', ['check-not-exists .freeze'], 'down, freeze', 'freeze'),
  row('moveDown', ['check-not-exists .freeze above'], 'down, freeze', 'freeze'),
  not('moveDown', ['lock .node/<me>'], 'down, same node', BUSY),
  not('moveDown', ['check-not-exists old lock'], 'down, same node', RETURNS),
  not('moveDown', ['check-index old lock', 'delete-cas old lock'], 'down, stray', STRAY),
  not('moveDown', ['check-index old owner'], 'down, same node', SAME),
  not('moveDown', ['delete-cas old owner'], 'down, same node', SAME),
  row('moveDown', ['check-index old owner', 'delete-cas old owner'], 'down, cleared', 'promise 4'),
  not('moveDown', ['check-not-exists owner'], 'down', SAME),
  not('moveDown', ['cas owner'], 'down', SAME),
  row('moveDown', NO_OWNER, 'down', 'promise 2'),
  not('moveDown', ['lock lock'], 'down', 'who has the lock has a claim too'),
  not('markNode', ['lock .node/<me>'], 'down, same node', BUSY),
  not('takeBack', ['lock .node/<me>'], 'same node', BUSY),
  not('takeBack', ['check-index owner'], 'operators', SAME),
  not('takeBack', ['cas owner'], 'operators', SAME),
  row('takeBack', OWNER, 'operators', 'promise 2'),
  not('takeBack', ['lock lock'], 'sessions', RETURNS),
  not('claimAgain', ['lock .node/<me>'], 'claim and lock deleted', BUSY),
  not('claimAgain', ['check-not-exists owner'], 'claim and lock deleted', SAME),
  not('claimAgain', ['cas owner'], 'claim and lock deleted', SAME),
  row('claimAgain', NO_OWNER, 'claim and lock deleted', 'promise 2'),
  not(
    'claimAgain',
    ['lock lock'],
    'claim and lock deleted',
    'who has the lock has a claim too, or lost it to a hand',
  ),
  not('start', ['check-session lock'], 'publish, taken over', UNCHANGED),
  row('start', ['check-index owner'], 'publish, operators', 'start'),
  row('start', ['check-session lock', 'check-index owner'], 'publish, taken over', 'start'),
  not('start', ['check-session second lock'], 'publish, two groups', UNCHANGED),
  row('start', ['check-index second owner'], 'publish, two groups', 'start'),
  row('start', ['check-index .state/condition'], 'publish, both', 'start'),
  not('finish', ['check-session lock'], 'publish, taken over', UNCHANGED),
  row('finish', ['check-index owner'], 'publish, operators', 'publish'),
  row('finish', ['check-session lock', 'check-index owner'], 'publish, taken over', 'publish'),
  not('finish', ['check-session second lock'], 'publish, two groups', UNCHANGED),
  row('finish', ['check-index second owner'], 'publish, two groups', 'publish'),
  row('finish', ['check-index .state/published'], 'publish, both', 'publish'),
  row('finish', ['delete-cas .state/during'], 'publish, both', 'publish'),
  not('release', ['check-session lock'], 'lock deleted', UNCHANGED),
  not(
    'release',
    OWNER,
    'evictions',
    'the run that has the lock has the claim, unless somebody changed it by hand',
  ),
  row('release', ['check-session lock', ...OWNER], 'late', 'promise 4'),
  row('recordAlone', ['cas .runs/<me>'], 'same node, recorded', 'history'),
  not('keep', ['check-session lock'], 'held, late', UNCHANGED),
  not('keep', ['check-index owner'], 'held, evicted', SAME),
  not('keep', ['cas owner'], 'held, evicted', SAME),
  not(
    'keep',
    OWNER,
    'held, evicted',
    'the run that has the lock has the claim, unless somebody changed it by hand',
  ),
  row('keep', ['check-session lock', ...OWNER], 'held, late', 'promise 2'),
  not('endHeld', ['check-not-exists lock'], 'held, end', 'a run that takes the lock also writes the claim'),
  not('endHeld', LOCK_SEEN, 'held, stray', STRAY),
  not('endHeld', ['check-index owner'], 'held, end', SAME),
  not('endHeld', ['delete-cas owner'], 'held, end', SAME),
  row('endHeld', ['check-index owner', 'delete-cas owner'], 'held, end', 'promise 4'),
  row('endHeld', ['cas owner'], 'held, end', 'promise 2'),
  not('abandon', ['check-not-exists lock'], 'abandoned', RETURNS),
  not('abandon', LOCK_SEEN, 'stray', STRAY),
  row('abandon', ['cas owner'], 'abandoned', 'promise 4'),
  not('notice', ['check-not-exists lock'], 'none', RETURNS),
  not('notice', LOCK_SEEN, 'stray', STRAY),
  row('notice', ['cas owner'], 'abandoned', 'promise 4'),
  row('changeClaim', ['cas owner'], 'evictions', 'promise 4'),
  not('removeSeen', ['check-index owner'], 'sessions', SAME),
  not('removeSeen', ['delete-cas owner'], 'sessions', SAME),
  row('removeSeen', ['check-index owner', 'delete-cas owner'], 'sessions', 'promise 4'),
  not('removeSeen', ['check-index .freeze'], 'freeze', SAME),
  not('removeSeen', ['delete-cas .freeze'], 'freeze', SAME),
  row('removeSeen', ['check-index .freeze', 'delete-cas .freeze'], 'freeze', 'freeze'),
  not('clearClaim', ['check-not-exists lock'], 'operators', RETURNS),
  not('clearClaim', ['check-index owner'], 'operators', SAME),
  not('clearClaim', ['delete-cas owner'], 'operators', SAME),
  row('clearClaim', ['check-index owner', 'delete-cas owner'], 'clearing', 'promise 1'),
  not('clearClaim', LOCK_SEEN, 'stray', STRAY),
  not('drop', ['check-not-exists lock'], 'down, finite', RETURNS),
  not('drop', ['check-index owner'], 'down, finite', SAME),
  not('drop', ['delete-cas owner'], 'down, finite', SAME),
  row('drop', ['check-index owner', 'delete-cas owner'], 'smaller N, finite', 'promise 2'),
  not('drop', LOCK_SEEN, 'smaller N, vanished', STRAY),
];

export const allRows = (): readonly Row[] => TABLE;

/** Undefined: it is as the row says. */
export function tryRow({ tx, checks, in: where, breaks, why }: Row): string | undefined {
  for (const name of where) {
    const { outcome } = explore(without(toWorld(configurations[name]), tx, checks));
    if (outcome.kind === 'broken' && breaks === undefined)
      return `${name}: ${outcome.promise}, although ${String(why)}\n  ${outcome.trace.join('\n  ')}`;
    if (breaks !== undefined && !(outcome.kind === 'broken' && outcome.promise.startsWith(breaks)))
      return `${name}: ${outcome.kind === 'broken' ? outcome.promise : outcome.kind}, not ${breaks}`;
  }
  return undefined;
}

/** What is not a check: a transaction that says, or does, something else. */
export interface Change {
  readonly tx: TxName;
  readonly what: string;
  readonly in: ConfigurationName;
  readonly breaks: string;
  readonly mutate: (steps: readonly RunStep[]) => readonly RunStep[];
}

const isSet = ({ operation }: RunStep, key: string): boolean =>
  operation.verb === 'set' && operation.key === key;

/** The same steps, where one writes another value. */
const rewritten = (steps: readonly RunStep[], key: string, rewrite: (value: string) => string): RunStep[] =>
  steps.map((step) => {
    const { operation } = step;
    const isWrite = operation.verb === 'set' || operation.verb === 'cas';
    return isWrite && operation.key === key
      ? { ...step, operation: { ...operation, value: rewrite(operation.value) } }
      : step;
  });

const CLAIM = /,"while":\{[^}]*\}/;
const ROOT = /,"root":"[^"]*"/;

export const CHANGES: readonly Change[] = [
  {
    ...{
      tx: 'comeBack',
      what: 'the claim says nothing of its root',
      in: 'publish, returns',
      breaks: 'during',
    },
    mutate: (steps) => rewritten(steps, keys.owner(0), (value) => value.replace(ROOT, '')),
  },
  {
    ...{ tx: 'start', what: 'the state names no claim', in: 'publish, returns', breaks: 'during' },
    mutate: (steps) => rewritten(steps, stateKeys.during, (value) => value.replace(CLAIM, '')),
  },
  {
    ...{
      tx: 'start',
      what: 'the state names its run, not the root',
      in: 'publish, returns',
      breaks: 'during',
    },
    mutate: (steps) =>
      rewritten(steps, stateKeys.during, (value) => {
        const { run } = JSON.parse(value) as { run: string };
        return value.replace(ROOT, `,"root":"${run}"`);
      }),
  },
  {
    ...{ tx: 'start', what: 'publishes already', in: 'publish', breaks: 'publish' },
    mutate: (steps) => [
      ...steps,
      { means: 'state', operation: { verb: 'set', key: stateKeys.published, value: handSet() } },
    ],
  },
  {
    ...{ tx: 'finish', what: 'publishes only afterwards', in: 'publish', breaks: 'publish' },
    mutate: (steps) => steps.filter((step) => !isSet(step, stateKeys.published)),
  },
  {
    ...{ tx: 'finish', what: 'does not record the run', in: 'publish', breaks: 'publish' },
    mutate: (steps) => steps.filter(({ operation }) => !operation.key.startsWith(keys.run(''))),
  },
  {
    ...{ tx: 'finish', what: 'ends each group by itself', in: 'publish, two groups', breaks: 'publish' },
    mutate: (steps) => steps.filter(({ operation }) => !operation.key.startsWith(secondKeys.prefix)),
  },
];

/** Undefined: the promise breaks as the row says. */
export function tryChange({ tx, in: where, breaks, mutate }: Change): string | undefined {
  const world = toWorld(configurations[where]);
  const { outcome } = explore({
    ...world,
    mutate: (name, steps) => (name === tx ? mutate(steps) : steps),
  });
  const broken = outcome.kind === 'broken' ? outcome.promise : outcome.kind;
  return broken.startsWith(breaks) ? undefined : `${where}: ${broken}, not ${breaks}`;
}

export const CHANGES_HEAD =
  '| transaction | if it were otherwise | in | what breaks |\n| --- | --- | --- | --- |';

export const changeText = ({ tx, what, in: where, breaks }: Change): string =>
  `| \`${tx}\` | ${what} | ${where} | ${breaks} |`;

export const TABLE_HEAD = '| transaction | left out | in | what breaks |\n| --- | --- | --- | --- |';

export function rowText({ tx, checks, in: where, breaks, why }: Row): string {
  const names = checks.map((check) => `\`${check}\``).join(' + ');
  return `| \`${tx}\` | ${names} | ${where.join(', ')} | ${breaks ?? `nothing: ${String(why)}`} |`;
}
