/** Runs that wait for their node's own claim: they have no ticket, and no run is ahead of them in the queue. Pure. */
import type { Entry } from '../consul/consul.ts';
import { parseKey } from '../lock/keys.ts';
import { decodeClaim, decodeNodeMark } from '../lock/records.ts';
import type { Claim } from '../lock/records.ts';
import type { FreezeView, ReturningView } from './report.ts';

/** The keys of a group that show which nodes are back. */
export interface Marks {
  readonly prefix: string;
  readonly marks: readonly Entry[];
  readonly tickets: readonly Entry[];
  readonly slots: ReadonlyMap<number, { readonly owner?: Entry; readonly lock?: Entry }>;
}

interface Seen {
  readonly frozen: FreezeView | undefined;
  readonly now: number;
  /** Returns the result of `decode`; undefined if it throws, which becomes a problem of the group. */
  readonly attempt: <T>(decode: () => T) => T | undefined;
}

/** Lists nodes marked by a live session that neither queues nor runs. A mark without a session blocks no run. */
export function viewReturning({ prefix, marks, tickets, slots }: Marks, seen: Seen): ReturningView[] {
  const claims = [...slots].flatMap(([slot, { owner }]) => {
    const claim = owner && readClaim(owner);
    return claim ? [{ slot, claim }] : [];
  });
  const busy = new Set(
    [...tickets, ...[...slots.values()].map(({ lock }) => lock)].map((entry) => entry?.session),
  );
  const all = marks.flatMap((entry): ReturningView[] => {
    const key = parseKey(prefix, entry.key)?.key;
    if (entry.session === undefined || key?.kind !== 'node') return [];
    const mark = seen.attempt(() => decodeNodeMark(entry));
    if (!mark || busy.has(entry.session)) return [];
    const { node } = key;
    const own = claims.find(({ claim }) => claim.node === node);
    // The run's own claim: its lock was taken away, or it is just being granted the slot.
    if (!own || own.claim.run === mark.run) return [];
    const { run, since, pid, host, publish } = mark;
    const waitedMs = Math.max(0, seen.now - Date.parse(since));
    const more = { ...(host !== undefined && { host }), ...(publish && { publish }) };
    return [
      {
        node,
        slot: own.slot,
        run,
        since,
        waitedMs,
        pid,
        session: entry.session,
        ...more,
        why: whyOf(own.slot, seen),
      },
    ];
  });
  return all.sort((a, b) => a.slot - b.slot);
}

function whyOf(slot: number, { frozen }: Seen): string {
  if (frozen) return `takes slot ${slot} back when the freeze ends`;
  return `slot ${slot} is beyond the run's --slots; the run starts in a lower slot once fewer than --slots slots are taken`;
}

/** An unreadable claim is reported with its slot, not here. */
function readClaim(owner: Entry): Claim | undefined {
  try {
    return decodeClaim(owner);
  } catch {
    return undefined;
  }
}
