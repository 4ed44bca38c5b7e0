/** How the triggers of a node's tasks, and its hooks, are doing, from their cursors. Pure. */
import type { Entry } from '../consul/consul.ts';
import { readCursor } from '../jobs/cursor.ts';
import type { Cursor } from '../jobs/cursor.ts';
import { hookKey, triggersPrefix } from '../jobs/keys.ts';
import { STUCK } from '../jobs/trigger.ts';

/**
 * `failing`: its last runs failed, it tries again later; `stuck`: so often that somebody should look, or (`stalledAt`) its
 * starts come to nothing. `tripped`: it started too often; it starts nothing until all its starts are left again. `refused`:
 * its last change was led to by its own run.
 * `unknown`: `why` says why that can't be told.
 */
export type TriggerState = 'ok' | 'failing' | 'stuck' | 'tripped' | 'refused' | 'unknown';

export interface TriggerView {
  /** Of a task; else of a hook. */
  readonly task?: string;
  readonly hook?: string;
  readonly state: TriggerState;
  /** The run that it started, while that is under way. */
  readonly run?: string;
  readonly startedAt?: string;
  /** When its last good run ended. */
  readonly goodAt?: string;
  /** In a row. */
  readonly failures?: number;
  /** Not before this. */
  readonly nextTryAt?: string;
  readonly trippedAt?: string;
  /** Since when no run has begun whatever it tried, or a hook's post was not taken. */
  readonly stalledAt?: string;
  /** With it: what the last try said. */
  readonly stalledWhy?: string;
  /** What led to the change that it refused, each as TASK@NODE, the first cause first. */
  readonly refused?: { readonly at: string; readonly cause: readonly string[] };
  readonly why?: string;
}

interface NodeAt {
  readonly prefix: string;
  readonly node: string;
  /** Wall-clock milliseconds. */
  readonly now: number;
}

/** By name, tasks first. */
export function viewTriggers({ prefix, node, now }: NodeAt, entries: readonly Entry[]): TriggerView[] {
  const [below, hooksBelow] = [triggersPrefix(prefix, node), hookKey(prefix, node, '')];
  const stored = entries.filter(({ key }) => key.startsWith(below)).sort((a, b) => (a.key < b.key ? -1 : 1));
  const ofHook = ({ key }: Entry) => key.startsWith(hooksBelow);
  return [
    ...stored
      .filter((entry) => !ofHook(entry))
      .map((entry) => ({ task: entry.key.slice(below.length), ...viewTrigger(entry, now) })),
    ...stored.filter(ofHook).map((entry) => ({
      hook: entry.key.slice(hooksBelow.length),
      ...viewTrigger(entry, now),
    })),
  ];
}

function viewTrigger(entry: Entry, now: number): Omit<TriggerView, 'task' | 'hook'> {
  const read = readCursor(entry);
  if (read.kind === 'newer') return { state: 'unknown', why: read.why };
  if (read.kind !== 'cursor') return { state: 'unknown', why: `${entry.key} holds no trigger` };
  const { cursor } = read;
  const { run, startedAt, goodAt, failures, backOffUntil, refused, stalledAt, stalledWhy } = cursor;
  const trip = isTripped(cursor, now) ? cursor : undefined;
  const nextTryAt = latest(backOffUntil, trip?.tripEndsAt);
  return {
    state: stateOf(cursor, now),
    ...(run !== undefined && { run }),
    ...(startedAt !== undefined && { startedAt }),
    ...(goodAt !== undefined && { goodAt }),
    ...(failures !== undefined && { failures }),
    ...(nextTryAt !== undefined && { nextTryAt }),
    ...(trip?.trippedAt !== undefined && { trippedAt: trip.trippedAt }),
    ...(stalledAt !== undefined && { stalledAt }),
    ...(stalledWhy !== undefined && { stalledWhy }),
    ...(refused && { refused: { at: refused.at, cause: refused.cause } }),
  };
}

const latest = (...times: readonly (string | undefined)[]) =>
  times.filter((time) => time !== undefined).sort((a, b) => Date.parse(b) - Date.parse(a))[0];

/** Its next start forgets that, however long ago it is over. */
const isTripped = ({ trippedAt, tripEndsAt }: Cursor, now: number) =>
  trippedAt !== undefined && (tripEndsAt === undefined || Date.parse(tripEndsAt) > now);

function stateOf(cursor: Cursor, now: number): TriggerState {
  const { failures = 0, refused, stalledAt } = cursor;
  if (failures >= STUCK) return 'stuck';
  if (isTripped(cursor, now)) return 'tripped';
  if (stalledAt !== undefined) return 'stuck';
  if (failures > 0) return 'failing';
  return refused ? 'refused' : 'ok';
}
