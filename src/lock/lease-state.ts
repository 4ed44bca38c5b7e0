/**
 * What a run knows about the slot that it holds, as one state machine (docs/protocol.md, "While it runs"). Pure:
 * lease.ts asks Consul and the clock, and acts on the state.
 *     held ──missing──▶ recovering ──proved──▶ held
 *       └───failed────▶ unknown ─────proved──▶ held       (unknown and recovering: each leads to the other too)
 *     any of them ──lost──▶ lost, ──released──▶ released
 */
import type { Over } from '../events/events.ts';
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { VANISHED_AFTER_MS } from './decide.ts';
import type { Hold } from './records.ts';
import { assertNever } from '../errors.ts';

export type LeaseState = Known & {
  /** When the last request was sent that proved that this run has the lock, in monotonic milliseconds. */
  readonly provedMs: number;
  /** Why the command must end. The first reason is kept. */
  readonly over?: Over;
  /** A claim was sent under the current session without an answer, so it may still arrive. */
  readonly unanswered?: true;
};

type Known =
  /** The last answer showed that the run has both lock and claim. */
  | { readonly kind: 'held' }
  /**
   * The last request had no answer, or was refused: the slot's state is unknown, so do not treat the slot as lost
   * yet.
   */
  | { readonly kind: 'unknown'; readonly trouble: Trouble; readonly isTransient: boolean }
  /** The lock or the claim is missing, and the run is taking it back. `refused`: why the last try failed. */
  | { readonly kind: 'recovering'; readonly trouble: Trouble; readonly refused?: Refusal }
  /** The slot no longer belongs to the run, or an operator evicted the run: stop watching. */
  | { readonly kind: 'lost' }
  /** The run has released the slot, given it up, or stopped watching it. */
  | { readonly kind: 'released' };

/**
 * `change`: the claim changed meanwhile. `claim`: the deleted claim exists again. `lock`, `node`: another session
 * holds the lock, or the node's mark.
 */
export type Refusal = 'change' | 'claim' | 'lock' | 'node';

/** What went wrong since the run was last known to have both lock and claim. */
interface Trouble {
  /** How often in a row the slot could not be seen, or not be taken back. */
  readonly failures: number;
  /** How often another session had the lock, or the node's mark. */
  readonly refusals: number;
  /** When Consul's silence began, in monotonic milliseconds. */
  readonly silentSinceMs?: number;
  /** The fault that was logged last. */
  readonly said?: string;
}

export type LeaseEvent =
  /** A read showed that the run has lock and claim, or a transaction has taken them. */
  | { readonly kind: 'proved'; readonly sentMs: number }
  /** A read showed that the lock or the claim is missing. */
  | { readonly kind: 'missing' }
  /** Consul refused the transaction that would have taken the slot back. */
  | { readonly kind: 'refused'; readonly by: Refusal }
  /** A request failed, or its answer says nothing about the slot. */
  | {
      readonly kind: 'failed';
      readonly fault: string;
      readonly isTransient: boolean;
      readonly nowMs: number;
    }
  /** A claim was sent, and no answer came. */
  | { readonly kind: 'unanswered' }
  /** A new session replaced the old one, which is destroyed, so late requests under it have no effect. */
  | { readonly kind: 'new-session' }
  /** An operator evicted the run, or the slot belongs to another run. */
  | { readonly kind: 'lost'; readonly why: Over }
  /** The time now. */
  | { readonly kind: 'tick'; readonly nowMs: number }
  | { readonly kind: 'released' };

/** The options of the run; times in milliseconds. `killAfterMs`: how long before the deadline SIGTERM must be sent. */
export interface Terms {
  readonly hold: Hold;
  readonly ttlMs: number;
  readonly killAfterMs: number;
}

/** The state of a slot that has just been granted. */
export const initialState = (provedMs: number): LeaseState => ({ kind: 'held', provedMs });

export const isWatched = ({ kind }: LeaseState): boolean => kind !== 'lost' && kind !== 'released';

/** The state after an event. Once nothing is watched any more, events change only `unanswered`. */
export function next(state: LeaseState, event: LeaseEvent, terms: Terms): LeaseState {
  switch (event.kind) {
    case 'unanswered':
      return { ...state, unanswered: true };
    case 'new-session':
      return answered(state);
    case 'released':
      return { ...common(state), kind: 'released' };
    case 'tick':
      return state.over || !isWatched(state) || event.nowMs < termAtMs(state, terms)
        ? state
        : { ...state, over: { kind: 'cut-off' } };
    case 'proved':
    case 'missing':
    case 'refused':
    case 'failed':
    case 'lost':
      return isWatched(state) ? watched(state, event, terms) : state;
    default:
      return assertNever(event);
  }
}

type OfSlot = Extract<LeaseEvent, { kind: 'proved' | 'missing' | 'refused' | 'failed' | 'lost' }>;

function watched(state: LeaseState, event: OfSlot, terms: Terms): LeaseState {
  const trouble = troubleOf(state) ?? { failures: 0, refusals: 0 };
  switch (event.kind) {
    case 'proved':
      return { ...common(state), kind: 'held', provedMs: event.sentMs };
    case 'missing':
      return { ...common(state), kind: 'recovering', trouble };
    case 'refused': {
      const isTaken = event.by === 'lock' || event.by === 'node';
      const refusals = trouble.refusals + (isTaken ? 1 : 0);
      return {
        ...common(state),
        kind: 'recovering',
        trouble: { ...trouble, refusals },
        refused: event.by,
      };
    }
    case 'failed':
      return {
        ...common(state),
        kind: 'unknown',
        trouble: worse(trouble, event, terms),
        isTransient: event.isTransient,
      };
    case 'lost':
      return { ...common(state), kind: 'lost', over: state.over ?? event.why };
    default:
      return assertNever(event);
  }
}

/** The parts of the state that every next state keeps. */
function common({ provedMs, over, unanswered }: LeaseState) {
  return { provedMs, ...(over && { over }), ...(unanswered && { unanswered }) };
}

function answered(state: LeaseState): LeaseState {
  const now: { unanswered?: true } & LeaseState = { ...state };
  delete now.unanswered;
  return now;
}

const troubleOf = (state: LeaseState): Trouble | undefined =>
  'trouble' in state ? state.trouble : undefined;

/**
 * Log a silence of Consul only after this long: longer than an election, or a restart of the agent by the command,
 * takes.
 */
const QUIET_SILENCE_MS = 30_000;

/**
 * Notes one more failure. `said` changes when the failure has to be logged: a new fault at once, Consul's silence
 * only when it lasts and `hold` is `forever`. With any other hold the run's deadline reports a lasting silence.
 */
function worse(
  before: Trouble,
  { fault, isTransient, nowMs }: Extract<LeaseEvent, { kind: 'failed' }>,
  { hold }: Terms,
): Trouble {
  const failures = before.failures + 1;
  if (!isTransient) return { ...before, failures, said: fault };
  const silentSinceMs = before.silentSinceMs ?? nowMs;
  const isLong = nowMs - silentSinceMs >= QUIET_SILENCE_MS;
  const isNew = hold === 'forever' && isLong && before.said === undefined;
  return { ...before, failures, silentSinceMs, ...(isNew && { said: fault }) };
}

/** What to log about the step from one state to the next. */
export type News =
  | { readonly kind: 'unseen'; readonly fault: string }
  | { readonly kind: 'seen' }
  | { readonly kind: 'lock-taken'; readonly by: 'lock' | 'node' };

/** Tolerate this many refusals: the session of an earlier run of this node may last a moment after that run gave up. */
const SAY_AFTER = 2;

/** Undefined: nothing to log. A lock that another session holds is logged once, because it may stay held for good. */
export function news(before: LeaseState, after: LeaseState): News | undefined {
  const was = troubleOf(before);
  const is = troubleOf(after);
  if (after.kind === 'held') return was?.said === undefined ? undefined : { kind: 'seen' };
  if (is?.said !== undefined && is.said !== was?.said) return { kind: 'unseen', fault: is.said };
  if (after.kind !== 'recovering' || is?.refusals !== SAY_AFTER + 1 || was?.refusals !== SAY_AFTER)
    return undefined;
  return { kind: 'lock-taken', by: after.refused === 'node' ? 'node' : 'lock' };
}

/** `FAULTY`: after a fault that may soon be over. `REFUSED`: after a refusal, which a person has to fix. */
const FAULTY: Growth = { shortestMs: 1_000, longestMs: 5_000 };
const REFUSED: Growth = { shortestMs: 1_000, longestMs: 30_000 };
const RETRY_MS = 500;
const LONGEST_RETRY_MS = 60_000;
/** Look again soon: the claim may be another run's, and then the command has to end. */
const LOOK_MS = 100;

/**
 * How long to pause before the next look, in milliseconds. With a limited hold, only frequent reads prove the lock
 * before the deadline, so the pause is never longer than a look may wait (`longestWaitMs`).
 */
export function pauseMs(state: LeaseState, terms: Terms, random: () => number): number {
  const limitMs = longestWaitMs(terms) ?? Infinity;
  switch (state.kind) {
    case 'unknown': {
      const growth = state.isTransient ? FAULTY : REFUSED;
      const longestMs = Math.min(growth.longestMs, limitMs);
      return growingMs(state.trouble.failures - 1, { ...growth, longestMs }, random);
    }
    case 'recovering':
      if (state.refused === undefined) return 0;
      if (state.refused === 'claim') return LOOK_MS;
      if (state.refused === 'change') return RETRY_MS;
      // Try less and less often: each try is a write, and only a person can remove the cause.
      return Math.min(LONGEST_RETRY_MS, limitMs, RETRY_MS * 2 ** (state.trouble.refusals - 1));
    case 'held':
    case 'lost':
    case 'released':
      return 0;
    default:
      return assertNever(state);
  }
}

/**
 * How long a look may wait for a change, in milliseconds; undefined: as long as Consul allows. With a limited hold,
 * the reads prove the lock. A proof counts from when its read was sent, so it is as old as the wait when the answer
 * comes, and twice as old before the next answer. Half of the time between renewals keeps a proof younger than that
 * time.
 */
export const longestWaitMs = ({ hold, ttlMs }: Terms): number | undefined =>
  hold === 'forever' ? undefined : ttlMs / 6;

/** Two seconds for the kill, and five more in case two clocks differ by twice of what is allowed. */
const MARGIN_MS = 7_000;

/**
 * How long after the last proof the command must be dead, in milliseconds. No other run can get the slot until 60 s
 * and the hold have passed since the proof: a run that marks the claim as missing has seen that the lock is gone, so
 * it marks it after the proof. Others judge the mark and the end of the hold by their own clocks, which may differ by
 * 5 s (docs/adr/0018).
 */
export function deadAfterMs(hold: Hold): number {
  switch (hold) {
    case 'forever':
      return Infinity;
    case 'none':
      return VANISHED_AFTER_MS - MARGIN_MS;
    default:
      return VANISHED_AFTER_MS + hold - MARGIN_MS;
  }
}

/** When all processes of the command must be dead, in monotonic milliseconds. */
export const deadlineMs = ({ provedMs }: LeaseState, { hold }: Terms): number => provedMs + deadAfterMs(hold);

/** When to send SIGTERM to the command, in monotonic milliseconds. */
export const termAtMs = (state: LeaseState, terms: Terms): number =>
  deadlineMs(state, terms) - terms.killAfterMs;
