/**
 * When a task starts by itself: which conditions ask for a run, what holds one back, and what becomes of the cursor
 * (docs/adr/0046). Pure. The times are those of the node's clock, in milliseconds since the epoch.
 */
import type { Sight } from '../conditions/marks.ts';
import type { Condition } from '../conditions/parse.ts';
import { causesBy, loopIn } from '../lock/causes.ts';
import type { Causes } from '../lock/causes.ts';
import { knownOf } from './cursor.ts';
import type { Cursor, ReadCursor } from './cursor.ts';

/** What the task's file says. */
export interface Rules {
  readonly minIntervalMs: number;
  readonly maxAgeMs?: number;
  /** Whether a condition that is true at the first look asks for a run. */
  readonly onFirst: 'run' | 'skip';
  /** Starts at once, and in an hour. */
  readonly perHour: number;
}

/** What has started the run: nobody but the node's own agent. */
export interface TriggerChoice extends Rules {
  readonly task: string;
  readonly on: readonly Condition[];
}

/** The cursor as it counts now. */
export interface Place {
  readonly cursor: Cursor;
  /** Whether a condition that the cursor does not name asks for a run. */
  readonly asksAnew: boolean;
  readonly isWritten: boolean;
}

const HOUR_MS = 3_600_000;
export const LONGEST_BACK_OFF_MS = HOUR_MS;
/** So many failures in a row, and a trigger counts as stuck. */
export const STUCK = 3;

const timeText = (ms: number) => new Date(ms).toISOString();

/** @throws never; a cursor of a newer runlock is for the caller to leave alone. */
export function placeOf(read: Exclude<ReadCursor, { kind: 'newer' }>, rules: Rules, nowMs: number): Place {
  if (read.kind === 'cursor')
    return { cursor: read.cursor, asksAnew: rules.onFirst === 'run', isWritten: true };
  const cursor: Cursor = { since: timeText(nowMs), marks: {} };
  // What has been lost may have been news.
  return { cursor, asksAnew: rules.onFirst === 'run' || read.kind === 'garbage', isWritten: false };
}

/** Whether a condition is true in a way that no run has seen. */
export function asks({ name, holds, mark, round }: Sight, { cursor, asksAnew }: Place): boolean {
  if (!holds) return false;
  const known = knownOf(cursor, name);
  if (!known) return asksAnew;
  return round ? round.low > (known.point ?? -1) : known.mark !== mark;
}

export const askingIn = (sights: readonly Sight[], place: Place): readonly Sight[] =>
  sights.filter((sight) => asks(sight, place));

/**
 * How long ago something was. A clock that was set back puts it into the future; what is further there than `mostMs` is not
 * believed (undefined), because it would hold a trigger back for as long.
 */
function agoMs(at: string | undefined, mostMs: number, nowMs: number): number | undefined {
  const ms = at === undefined ? undefined : nowMs - Date.parse(at);
  return ms === undefined || ms < -mostMs ? undefined : ms;
}

/** Until the last good run is too long ago, or the first look if there was none yet. */
function ageLeftMs({ cursor, isWritten, asksAnew }: Place, { maxAgeMs }: Rules, nowMs: number): number {
  if (maxAgeMs === undefined) return Infinity;
  if (!isWritten && asksAnew) return 0;
  const { goodAt, since } = cursor;
  const sinceMs = agoMs(goodAt ?? since, maxAgeMs, nowMs);
  return sinceMs === undefined ? 0 : maxAgeMs - sinceMs;
}

export interface Bucket {
  readonly left: number;
  readonly isTripped: boolean;
  /** Until a start is left; of a tripped one, until all are. */
  readonly dueInMs: number;
}

export function bucketOf({ left, filledAt, trippedAt }: Cursor, { perHour }: Rules, nowMs: number): Bucket {
  const sinceMs = Math.max(0, agoMs(filledAt, HOUR_MS, nowMs) ?? HOUR_MS);
  const now = Math.min(perHour, (left ?? perHour) + (sinceMs / HOUR_MS) * perHour);
  const untilMs = (starts: number) => Math.round(((starts - now) / perHour) * HOUR_MS);
  if (trippedAt !== undefined && now < perHour)
    return { left: now, isTripped: true, dueInMs: Math.max(1, untilMs(perHour)) };
  return { left: now, isTripped: false, dueInMs: now >= 1 ? 0 : Math.max(1, untilMs(1)) };
}

export type HeldBack = 'back-off' | 'min-interval' | 'tripped';

export const isAged = (place: Place, rules: Rules, nowMs: number): boolean =>
  ageLeftMs(place, rules, nowMs) <= 0;

/** What a trigger does next. `dueInMs`: when that may change without a change of a condition. */
export type Next =
  | { readonly kind: 'quiet'; readonly dueInMs: number }
  | { readonly kind: 'held'; readonly by: HeldBack; readonly dueInMs: number }
  | { readonly kind: 'start'; readonly asking: readonly Sight[] };

/** Without debounce, which is for a short moment and needs no cursor (`settle`). */
export function next(sights: readonly Sight[], place: Place, rules: Rules, nowMs: number): Next {
  const { cursor } = place;
  const asking = askingIn(sights, place);
  const ageMs = ageLeftMs(place, rules, nowMs);
  if (asking.length === 0 && ageMs > 0) return { kind: 'quiet', dueInMs: ageMs };
  const backOffMs = -(agoMs(cursor.backOffUntil, LONGEST_BACK_OFF_MS, nowMs) ?? 0);
  if (backOffMs > 0) return { kind: 'held', by: 'back-off', dueInMs: backOffMs };
  // What is due by its age must not be put off by what else is wrong with the trigger.
  if (ageMs <= 0) return { kind: 'start', asking };
  const { minIntervalMs } = rules;
  const intervalMs = minIntervalMs - (agoMs(cursor.startedAt, minIntervalMs, nowMs) ?? minIntervalMs);
  if (intervalMs > 0) return { kind: 'held', by: 'min-interval', dueInMs: Math.min(intervalMs, ageMs) };
  const bucket = bucketOf(cursor, rules, nowMs);
  if (bucket.isTripped || bucket.dueInMs > 0)
    return { kind: 'held', by: 'tripped', dueInMs: Math.min(bucket.dueInMs, ageMs) };
  return { kind: 'start', asking };
}

export type Admission =
  | { readonly kind: 'admitted'; readonly causes: Causes }
  /** Every change that asks was led to by this very task, or by too many starts. */
  | { readonly kind: 'refused'; readonly why: 'loop' | 'deep'; readonly causes: Causes };

/** @param link the task and its node. @param asking none: only its age asks. */
export function admit(asking: readonly Sight[], link: string): Admission {
  const changesOf = (sights: readonly Sight[]) => sights.flatMap(({ changes }) => changes);
  const causes = causesBy(changesOf(asking), link);
  const why = loopIn(causes);
  if (!why) return { kind: 'admitted', causes };
  // A change of another origin has a run of its own right; it covers the others too.
  const free = asking.filter((sight) => !loopIn(causesBy(changesOf([sight]), link)));
  if (free.length > 0) return { kind: 'admitted', causes: causesBy(changesOf(free), link) };
  return { kind: 'refused', why, causes };
}

/** Changes that follow each other count as one: since when they have, on a clock that only moves forward. */
export interface Settling {
  /** What asks: another mark is another change. */
  readonly of: string;
  readonly sinceMs: number;
  readonly changedMs: number;
}

/** A change a second must not put a run off for ever: after so many times the debounce it starts all the same. */
const MOST_DEBOUNCES = 4;

/** @returns how long to wait yet; 0: the run may start. `settling`: for the next call. */
export function settle(
  before: Settling | undefined,
  asking: readonly Sight[],
  { debounceMs, nowMs }: { readonly debounceMs: number; readonly nowMs: number },
): { readonly settling: Settling; readonly dueInMs: number } {
  const of = JSON.stringify(asking.map(({ name, mark, round }) => [name, mark, round?.high]));
  const isSame = before?.of === of;
  const settling = { of, sinceMs: before?.sinceMs ?? nowMs, changedMs: isSame ? before.changedMs : nowMs };
  const untilMs = Math.min(settling.changedMs + debounceMs, settling.sinceMs + MOST_DEBOUNCES * debounceMs);
  return { settling, dueInMs: asking.length === 0 ? 0 : Math.max(0, untilMs - nowMs) };
}
