/** What a trigger and a hook have in common: conditions, a cursor, and something to do when one asks. */
import { nameOf } from '../conditions/marks.ts';
import type { Sight } from '../conditions/marks.ts';
import type { Condition } from '../conditions/parse.ts';
import { observed, recovered, stalled, tripped } from '../jobs/trigger-cursor.ts';
import { STUCK, next, placeOf, settle } from '../jobs/trigger.ts';
import type { HeldBack, Next, Place, Rules, Settling } from '../jobs/trigger.ts';
import type { Cursor } from '../jobs/cursor.ts';
import { assertNever } from '../errors.ts';
import type { Deps } from '../platform/deps.ts';
import type { Sights } from './sights.ts';
import type { StoredCursor } from './stored-cursor.ts';

/** Whatever a node's files say is to happen after a change. */
export interface Reactor {
  /** `task chef`, `hook chat`. */
  readonly name: string;
  readonly key: string;
  readonly on: readonly Condition[];
  readonly rules: Rules & { readonly debounceMs: number };
  /** Whether it starts runs, which an operator may pause. */
  readonly isPausable: boolean;
  /**
   * Acts on what asks. Resolves when it is over, and something new may begin.
   * @throws RunlockError: it is tried again later.
   */
  act(asked: Asked, signal: AbortSignal): Promise<Acted>;
}

export interface Asked {
  readonly asking: readonly Sight[];
  readonly sights: readonly Sight[];
  readonly place: Place;
  /** Names of conditions that turned false while it acts. */
  readonly turned: ReadonlySet<string>;
}

export type Acted =
  /** The cursor tells what became of it. */
  | { readonly kind: 'done' }
  /** Nothing has come of it, and it is tried again after a pause. */
  | { readonly kind: 'failed'; readonly why?: string };

/** What it waits for, for people. */
export type Waits =
  | { readonly kind: 'quiet' }
  | { readonly kind: 'acting' }
  | { readonly kind: 'held'; readonly by: HeldBack | 'debounce' | 'retry' | 'paused' }
  | { readonly kind: 'newer'; readonly why: string };

/** How a reactor stands between two looks; changed in place by its loop alone. */
export interface Standing {
  stored: StoredCursor;
  settling: Settling | undefined;
  /** While it acts. */
  turned: Set<string> | undefined;
  /** In a row, without a word in the cursor. */
  failures: number;
  /** Of the last one. */
  why: string | undefined;
  retryMs: number;
  writtenMs: number;
  waits: Waits;
}

/** A write a second at most. */
const WRITE_PAUSE_MS = 1_000;

export type Step =
  | { readonly kind: 'wait'; readonly dueInMs: number }
  | { readonly kind: 'write'; readonly cursor: Cursor }
  | { readonly kind: 'act'; readonly asked: Omit<Asked, 'turned'> };

export const sightsOf = ({ on }: Pick<Reactor, 'on'>, sights: Sights): readonly Sight[] =>
  on.flatMap((condition) => sights.get(nameOf(condition)) ?? []);

/** Decides what is next for a reactor that does not act. `sights` may be incomplete. */
export function step(
  { on, rules }: Pick<Reactor, 'on' | 'rules'>,
  standing: Standing,
  { sights, clock }: { readonly sights: Sights; readonly clock: Deps['clock'] },
): Step {
  const wait = (waits: Waits, dueInMs: number): Step => {
    standing.waits = waits;
    return { kind: 'wait', dueInMs };
  };
  const { read } = standing.stored;
  if (read.kind === 'newer') return wait({ kind: 'newer', why: read.why }, Infinity);
  const [nowMs, monotonicMs] = [clock.now(), clock.monotonicMs()];
  const place = placeOf(read, rules, nowMs);
  const seen = sightsOf({ on }, sights);
  const now = next(seen, place, rules, nowMs);
  // Before the first look there is nothing to note.
  const noted = on.length > 0 && seen.length === 0 ? undefined : observed(seen, place);
  const toWrite =
    noted ??
    toShow(now, {
      seen,
      place,
      rules,
      ...standing,
      nowMs,
      isWhole: seen.length === on.length,
    });
  const writeMs = standing.writtenMs + WRITE_PAUSE_MS - monotonicMs;
  if (toWrite && writeMs <= 0) return { kind: 'write', cursor: toWrite };
  const atMost = (ms: number) => (toWrite ? Math.min(ms, writeMs) : ms);
  switch (now.kind) {
    case 'quiet':
      standing.settling = undefined;
      standing.failures = 0;
      return wait({ kind: 'quiet' }, atMost(now.dueInMs));
    case 'held':
      return wait({ kind: 'held', by: now.by }, atMost(now.dueInMs));
    case 'start':
      break;
    default:
      return assertNever(now);
  }
  const retryMs = standing.retryMs - monotonicMs;
  if (retryMs > 0) return wait({ kind: 'held', by: 'retry' }, atMost(retryMs));
  const { settling, dueInMs } = settle(standing.settling, now.asking, { ...rules, nowMs: monotonicMs });
  standing.settling = settling;
  if (dueInMs > 0) return wait({ kind: 'held', by: 'debounce' }, atMost(dueInMs));
  return { kind: 'act', asked: { asking: now.asking, sights: seen, place } };
}

interface Showing {
  readonly seen: readonly Sight[];
  /** Whether all conditions have been looked at. */
  readonly isWhole: boolean;
  readonly place: Place;
  readonly rules: Rules;
  /** As in `Standing`. */
  readonly failures: number;
  readonly why: string | undefined;
  readonly nowMs: number;
}

/** What others can only know from the cursor: that it starts nothing for a while, and that nothing comes of its starts. */
function toShow(
  now: Next,
  { seen, isWhole, place, rules, failures, why, nowMs }: Showing,
): Cursor | undefined {
  const { cursor } = place;
  switch (now.kind) {
    case 'quiet':
      // What has not been looked at yet may ask.
      return cursor.stalledAt === undefined || !isWhole ? undefined : recovered(cursor);
    case 'held':
      return now.by === 'tripped' && cursor.trippedAt === undefined
        ? tripped(cursor, rules, nowMs)
        : undefined;
    case 'start':
      return failures >= STUCK && cursor.stalledAt === undefined
        ? stalled({ sights: seen, place }, rules, { nowMs, why })
        : undefined;
    default:
      return assertNever(now);
  }
}
