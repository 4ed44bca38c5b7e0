// What each check of each transaction of a job is good for: the promise that breaks without it, or why none does.
import { without } from './checks.ts';
import { configurations, toWorld } from './configurations.ts';
import type { ConfigurationName } from './configurations.ts';
import { explore } from './explore.ts';
import type { Change, TxName } from './world.ts';

export interface Row {
  readonly tx: string;
  /** Sent without the checks, in all of these. */
  readonly names: readonly TxName[];
  /** Left out together. */
  readonly checks: readonly string[];
  readonly in: ConfigurationName;
  /** How the broken promise begins. */
  readonly breaks?: string;
  /** Why nothing breaks. */
  readonly why?: string;
}

const END: readonly TxName[] = ['end', 'endByAgent', 'lost', 'offline'];
const SAME = 'the other checks say the same; without all of them see below';
const OF_RUN = 'the slots are left out of this model; that of the lock has them';

const rows = (
  tx: TxName | 'an end',
  of: readonly (readonly [
    checks: string,
    where: ConfigurationName,
    breaks: string | undefined,
    why?: string,
  ])[],
): readonly Row[] =>
  of.map(([checks, where, breaks, why]) => ({
    ...{ tx, names: tx === 'an end' ? END : [tx], checks: checks.split(' + '), in: where },
    ...(breaks !== undefined && { breaks }),
    ...(why !== undefined && { why }),
  }));

export const ROWS: readonly Row[] = [
  ...rows('create', [
    ['cas spec', 'written', undefined, SAME],
    ['cas stage', 'written', undefined, SAME],
    ['cas tally', 'written', undefined, SAME],
    ['cas spec + cas stage + cas tally', 'written', 'promise 6'],
  ]),
  ...rows('fill', [
    ['check-index stage', 'written, cancelled', undefined, 'it only wakes nobody for a job that is stopped'],
    ['cas spec', 'written', undefined, SAME],
    ['cas list', 'written', undefined, SAME],
  ]),
  ...rows('ready', [
    ['check-index spec', 'restored, written', 'the job is open, and a target was never told'],
    ['check-index tally', 'restored, written', 'promise 6'],
    ['cas stage', 'written, cancelled', 'promise 6'],
  ]),
  ...rows('stop', [['cas stage', 'expired', 'promise 6']]),
  ...rows('accept', [
    [
      'check-index stage',
      'cancelled',
      undefined,
      'a target that accepts in a job that is stopped has ended by the stop',
    ],
    ['cas target', 'expired', 'promise 6'],
  ]),
  ...rows('start', [
    ['check-index stage', 'expired', 'promise 8'],
    ['check-index spec', 'edited', 'promise 4'],
    ['cas target', 'expired', 'promise 5'],
    ['check-session lock', 'late', 'a target runs by its document, and its run has left'],
    ['check-index owner', 'late', undefined, OF_RUN],
  ]),
  ...rows('an end', [
    ['check-index stage', 'restored', 'more failures than are allowed'],
    ['cas stage', 'expired', 'promise 6'],
    ['cas target', 'expired', undefined, 'an end changes the tally too, so no second one takes effect'],
    ['cas tally', 'expired', 'promise 6'],
  ]),
  ...rows('end', [
    ['check-session lock', 'deaths', undefined, OF_RUN],
    ['check-index owner', 'deaths', undefined, OF_RUN],
  ]),
  ...rows('lost', [['check-index owner', 'deaths', 'a run that has its lock is lost']]),
  ...rows('drop', [
    ['check-index stage', 'restored', 'promise 6'],
    ['check-index target', 'restored', 'promise 6'],
    ['delete-cas pointer', 'restored', undefined, 'no job has the name of an earlier one in this model'],
  ]),
];

export interface ChangeRow {
  readonly change: Change;
  readonly in: ConfigurationName;
  readonly breaks: string;
}

export const CHANGE_ROWS: readonly ChangeRow[] = [
  { change: 'stop after the failing end', in: 'expired', breaks: 'more failures than are allowed' },
  { change: 'act before ready', in: 'written', breaks: 'promise 6' },
  { change: 'pointer goes with accept', in: 'deaths', breaks: 'promise 6' },
  { change: 'no ledger', in: 'restored', breaks: 'promise 5' },
  {
    change: 'leave before destroying the session',
    in: 'late',
    breaks: 'a target runs by its document, and its run has left',
  },
  { change: 'end over lost', in: 'deaths', breaks: 'promise 6' },
  { change: 'retry in place', in: 'retried', breaks: 'promise 5' },
  { change: 'next stage is the one after', in: 'empty stage', breaks: 'promise 6' },
  { change: 'no stage needs a good run', in: 'others', breaks: 'a stage is open, and nobody' },
  { change: 'ready without the tally', in: 'restored, written', breaks: 'promise 6' },
];

/** How the row is wrong; undefined: it is right. */
export function tryRow({ names, checks, in: where, breaks }: Row): string | undefined {
  return judge(explore(without(toWorld(configurations[where]), names, checks)).outcome, breaks);
}

export const tryChange = ({ change, in: where, breaks }: ChangeRow): string | undefined =>
  judge(explore({ ...toWorld(configurations[where]), change }).outcome, breaks);

function judge(
  outcome: ReturnType<typeof explore>['outcome'],
  breaks: string | undefined,
): string | undefined {
  if (outcome.kind !== 'broken') return breaks === undefined ? undefined : `'${breaks}' does not break`;
  if (breaks !== undefined && outcome.promise.startsWith(breaks)) return undefined;
  return `'${outcome.promise}' breaks:\n  ${outcome.trace.join('\n  ')}`;
}

export const TABLE_HEAD = `| transaction | without | what breaks | in |
| --- | --- | --- | --- |`;
export const rowText = ({ tx, checks, in: where, breaks, why }: Row): string =>
  `| ${tx} | ${checks.map((check) => `\`${check}\``).join(' and ')} | ${breaks ?? `nothing: ${why ?? ''}`} | ${where} |`;
export const CHANGES_HEAD = `| if it were so | what breaks | in |
| --- | --- | --- |`;
export const changeText = ({ change, breaks, in: where }: ChangeRow): string =>
  `| ${change} | ${breaks} | ${where} |`;
