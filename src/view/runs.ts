/** Runs in several groups: in which other groups does a run hold a slot, or wait? Pure. */
import type { Entry } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import { parseKey } from '../lock/keys.ts';
import { decodeClaim, decodeTicket } from '../lock/records.ts';
import { isWithin } from './below.ts';
import type { PlaceView } from './report.ts';
import type { Scope } from './sources.ts';
import { groupsOfWaits, waitingRuns } from './waits.ts';

/** The places of a run in other groups than the given one, by run id. */
export type Elsewhere = (run: string, group: string) => readonly PlaceView[];

interface Found {
  readonly run: string;
  readonly groups: readonly string[];
  readonly place: PlaceView;
}

/** @param entries keys of all groups that may matter; tickets in the order of their queues. */
export function findRuns(prefix: string, entries: readonly Entry[]): Elsewhere {
  const runs = new Map<string, PlaceView[]>();
  for (const { run, place } of runsInSeveral(prefix, entries))
    runs.set(run, [...(runs.get(run) ?? []), place]);
  return (run, group) => (runs.get(run) ?? []).filter((place) => place.group !== group);
}

/**
 * Further groups of the runs in `groups`, and groups that these runs wait for, except groups below these, and `known`
 * ones.
 */
export function groupsBeside(
  { prefix, groups }: Scope,
  entries: readonly Entry[],
  known: readonly string[],
): string[] {
  const named = runsInSeveral(prefix, entries).flatMap((found) => found.groups);
  const waited = groupsOfWaits(waitingRuns(prefix, entries));
  const beside = [...new Set([...named, ...waited])].filter(
    (group) => !isWithin(group, groups) && !known.includes(group),
  );
  return beside.slice(0, Math.max(0, MOST_BESIDE - known.length));
}

/** A record can name any number of groups. */
const MOST_BESIDE = 128;

function runsInSeveral(prefix: string, entries: readonly Entry[]): Found[] {
  const places = new Map<string, number>();
  const inOrder = [...entries].sort((a, b) => a.createIndex - b.createIndex);
  return inOrder.flatMap((entry): Found[] => {
    const { group, key } = parseKey(prefix, entry.key) ?? {};
    if (group === undefined || key === undefined) return [];
    if (key.kind === 'ticket') {
      const place = (places.get(group) ?? 0) + 1;
      places.set(group, place);
      const ticket = several(entry, decodeTicket);
      return ticket ? [{ run: ticket.run, groups: ticket.groups ?? [], place: { group, place } }] : [];
    }
    const claim = key.kind === 'owner' ? several(entry, decodeClaim) : undefined;
    if (key.kind !== 'owner' || !claim) return [];
    const { run, groups = [], state } = claim;
    return [{ run, groups, place: { group, slot: key.slot, state } }];
  });
}

/** Undefined: the run has only one group, or the record can't be read, which its group reports. */
function several<T extends { readonly groups?: readonly string[] }>(
  entry: Entry,
  decode: (entry: Entry) => T,
): T | undefined {
  // Skip decoding for most entries, because there can be thousands.
  if (!entry.value.includes('"groups"')) return undefined;
  try {
    const record = decode(entry);
    return record.groups ? record : undefined;
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    return undefined;
  }
}
