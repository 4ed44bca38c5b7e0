/** Runs in several groups: where else a run is that holds a slot of one group, or waits in it. Pure. */
import type { Entry } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import { parseKey } from '../lock/keys.ts';
import { decodeClaim, decodeTicket } from '../lock/records.ts';
import { isWithin } from './below.ts';
import type { PlaceView } from './report.ts';
import type { Scope } from './sources.ts';

/** Where a run is besides the group that is looked at; it is found by its id. */
export type Elsewhere = (run: string, group: string) => readonly PlaceView[];

interface Found {
  readonly run: string;
  readonly groups: readonly string[];
  readonly place: PlaceView;
}

/** @param entries of all groups that may be of interest, tickets in the order of their groups' queues. */
export function findRuns(prefix: string, entries: readonly Entry[]): Elsewhere {
  const runs = new Map<string, PlaceView[]>();
  for (const { run, place } of runsInSeveral(prefix, entries))
    runs.set(run, [...(runs.get(run) ?? []), place]);
  return (run, group) => (runs.get(run) ?? []).filter((place) => place.group !== group);
}

/** The groups that runs in `groups` are in too, and that are neither among them or below them, nor `known`. */
export function groupsBeside(
  { prefix, groups }: Scope,
  entries: readonly Entry[],
  known: readonly string[],
): string[] {
  const named = runsInSeveral(prefix, entries).flatMap((found) => found.groups);
  return [...new Set(named)].filter((group) => !isWithin(group, groups) && !known.includes(group));
}

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

/** Undefined: it is of one group alone, or can't be read, which is said where the group is shown. */
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
