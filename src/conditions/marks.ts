/**
 * What a trigger has to know of a condition: whether it is true, and the mark of what that rests on, which tells a new
 * truth from the one that a run has seen already (docs/adr/0046). Pure.
 */
import { createHash } from 'node:crypto';
import { assertNever } from '../errors.ts';
import type { Change } from '../lock/causes.ts';
import type { StateDocument } from '../state/document.ts';
import type { Judged, Round } from './judge.ts';
import type { Condition } from './parse.ts';

export interface Sight {
  /** Names the condition in a cursor. */
  readonly name: string;
  readonly holds: boolean;
  /** Only compared for equality. Always the same where Consul keeps nothing that would tell: then only a flip is news. */
  readonly mark: string;
  /** Of `good:`, instead of the mark: news is only a round that began after the last one. */
  readonly round?: Pick<Round, 'low' | 'high'> | undefined;
  /** What led to it. */
  readonly changes: readonly Change[];
  /** The current facts, for people. */
  readonly is: string;
  /** Of `state:`, if it is set. */
  readonly state?: StateDocument | undefined;
}

/** The runs of a group that have ended: by the index of the last write, which grows with each end. */
export interface Ends {
  readonly index: number;
  readonly changes: readonly Change[];
}

/** Groups of which the last end is needed: that a group is idle again shows in nothing else. */
export const endsNeeded = (conditions: readonly Condition[]): readonly string[] => [
  ...new Set(conditions.flatMap((each) => (each.kind === 'idle' ? [each.group] : []))),
];

/** @param ends by group, of those that `endsNeeded` names. */
export function sightOf(judged: Judged, ends: ReadonlyMap<string, Ends>): Sight {
  const { condition, holds, is, state } = judged;
  const { mark, round, changes = judged.changes } = seen(judged, ends);
  return { name: nameOf(condition), holds, mark: short(mark), round, changes, is, state };
}

interface Seen {
  readonly mark: string;
  readonly round?: Round | undefined;
  readonly changes?: readonly Change[];
}

function seen({ condition, holds, mark, round }: Judged, ends: ReadonlyMap<string, Ends>): Seen {
  switch (condition.kind) {
    case 'state':
    case 'active':
    case 'blocked':
    case 'frozen':
      return { mark };
    case 'idle': {
      // The opposite of idle rests on the runs in the slots.
      if (holds === condition.not) return { mark };
      const last = ends.get(condition.group);
      return { mark: `ended ${last?.index ?? 0}`, changes: last?.changes ?? [] };
    }
    case 'good':
      return condition.not ? { mark: round?.bad ?? 'none' } : { mark: '', round };
    // A check's index also moves with its output, and an agent's session with each restart.
    case 'healthy':
    case 'agent':
      return { mark: '' };
    default:
      return assertNever(condition);
  }
}

const LONGEST = 120;

/** Values of states can be long, and so can be the list of a thousand runs. */
const short = (text: string) =>
  text.length <= LONGEST
    ? text
    : `${text.slice(0, LONGEST / 2)}~${createHash('sha256').update(text).digest('hex').slice(0, 32)}`;

export const nameOf = ({ text }: Condition): string => short(text);
