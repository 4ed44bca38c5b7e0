/** Whether a group is in use, and which keys it leaves in Consul: for `runlock forget`. Pure. */
import type { Entry } from '../consul/consul.ts';
import { assertNever, isRunlockError } from '../errors.ts';
import { formatAge } from '../text/age.ts';
import { groupKeys, parseKey } from './keys.ts';
import { decodeClaim, decodeFreeze, decodeNodeMark, decodeTicket, leftOf } from './records.ts';

export interface GroupUse {
  /** What needs the group, as parts of a sentence; empty: nothing does. */
  readonly uses: readonly string[];
  /**
   * All keys that can be deleted, in order: an expired freeze first, and `.tail` last, because it guards the others.
   */
  readonly leftovers: readonly Entry[];
  /** The index of `.tail`; 0: there is none. */
  readonly tailIndex: number;
  /** Nodes whose last run is recorded, by name. */
  readonly nodes: readonly string[];
}

interface Group {
  readonly prefix: string;
  readonly group: string;
  /** Wall-clock milliseconds: the earliest possible time now, because runs judge the end of a freeze by that too. */
  readonly now: number;
}

/** A run that was sent away reads this at its next renewal: hours later if its session's TTL is a day. */
const AWAY_MS = 3_600_000;

/** @param entries all keys below the group, including those of the groups below it. */
export function findUse(entries: readonly Entry[], { prefix, group, now }: Group): GroupUse {
  const keys = groupKeys(prefix, group);
  const uses: Use[] = [];
  const found: { readonly entry: Entry; readonly order: number }[] = [];
  const nodes: string[] = [];
  let tailIndex = 0;
  for (const entry of entries) {
    const parsed = parseKey(prefix, entry.key);
    // The key of a folder: Consul's web UI creates such keys.
    const isFolder = entry.key === keys.prefix;
    if (parsed?.group !== group && !isFolder) continue;
    const kind = isFolder || !parsed ? ({ kind: 'other' } as const) : parsed.key;
    const use = useOf(entry, kind, now);
    if (use !== undefined) uses.push(use);
    if (kind.kind === 'tail') tailIndex = entry.modifyIndex;
    if (kind.kind === 'run') nodes.push(kind.node);
    const order = kind.kind === 'freeze' ? 0 : kind.kind === 'tail' ? 3 : kind.kind === 'last' ? 2 : 1;
    found.push({ entry, order });
  }
  const leftovers = found.sort((a, b) => a.order - b.order).map(({ entry }) => entry);
  return { uses: textsOf(uses), leftovers, tailIndex, nodes: nodes.sort() };
}

type Kind = NonNullable<ReturnType<typeof parseKey>>['key'];

interface Use {
  readonly text: string;
  /** The node that runs or waits. */
  readonly node?: string | undefined;
  readonly slot?: number;
  /** Left out if another use of the same node or the same slot says more. */
  readonly less?: true;
}

/** The texts without duplicates, and without marks and locks that belong to a claim or ticket in the list. */
function textsOf(uses: readonly Use[]): string[] {
  const better = uses.filter(({ less }) => !less);
  const isSaid = ({ less, node, slot }: Use) =>
    less &&
    better.some((use) =>
      node === undefined ? use.slot !== undefined && use.slot === slot : use.node === node,
    );
  return [...new Set(uses.filter((use) => !isSaid(use)).map(({ text }) => text))];
}

/** Why the key is needed; undefined: nothing needs it. */
function useOf(entry: Entry, kind: Kind, now: number): Use | undefined {
  const isHeld = entry.session !== undefined;
  switch (kind.kind) {
    case 'owner': {
      const { slot } = kind;
      const claim = readable(() => decodeClaim(entry));
      if (!claim) return { text: `slot ${slot} has an unreadable claim`, slot };
      return { text: `${claim.node} has a claim on slot ${slot} (${claim.state})`, node: claim.node, slot };
    }
    case 'ticket': {
      const node = readable(() => decodeTicket(entry))?.node;
      return { text: `${node ?? 'a run'} is waiting`, node };
    }
    case 'lock':
      return isHeld ? { text: `a session holds slot ${kind.slot}`, slot: kind.slot, less: true } : undefined;
    case 'node': {
      const { node } = kind;
      if (isHeld) return { text: `${node} is waiting or running`, node, less: true };
      const sent = readable(() => decodeNodeMark(entry))?.away;
      const ageMs = now - Date.parse(sent?.at ?? '');
      if (!sent || ageMs > AWAY_MS) return undefined;
      return {
        text: `${node} was removed from the queue ${formatAge(ageMs)} ago, and its runlock may not have exited yet`,
      };
    }
    case 'outside':
      return isHeld ? { text: `${kind.node} is waiting without a slot`, node: kind.node } : undefined;
    case 'freeze': {
      const freeze = readable(() => decodeFreeze(entry));
      if (!freeze) return { text: 'the freeze of the group is unreadable' };
      if (leftOf(freeze, now) <= 0) return undefined;
      return { text: `the group is frozen by ${freeze.by} (${freeze.reason})` };
    }
    case 'other':
      // A newer runlock may need keys that this version does not know.
      if (entry.value === '' && !isHeld) return undefined;
      return { text: `${entry.key} is unknown to this version of runlock` };
    case 'tail':
    case 'last':
    case 'run':
      return isHeld ? { text: `a session holds ${entry.key}` } : undefined;
    default:
      return assertNever(kind);
  }
}

/** Decodes a record; undefined: the record is unreadable. */
function readable<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    return undefined;
  }
}
