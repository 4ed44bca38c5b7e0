/**
 * What a run knows of the slot that it holds, as one state machine (docs/protocol.md, "While it runs"). Pure: lease.ts asks
 * Consul and the clock, and does what the state asks for.
 *
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
  /** When the last request that proved the lock mine was sent, in monotonic milliseconds. */
  readonly provedMs: number;
  /** Why the command must end; the first reason stays. */
  readonly over?: Over;
  /** A claim was sent under the present session, and nobody knows whether it will still arrive. */
  readonly unanswered?: true;
};

type Known =
  /** Lock and claim are the run's, as the last answer showed. */
  | { readonly kind: 'held' }
  /** The last request had no answer, or was refused: nothing is known, so nothing is lost yet. */
  | { readonly kind: 'unknown'; readonly trouble: Trouble; readonly isTransient: boolean }
  /** Lock or claim is missing: it is being taken back. `refused`: what the last try met. */
  | { readonly kind: 'recovering'; readonly trouble: Trouble; readonly refused?: Refusal }
  /** It is the run's no longer, or an operator wants it: nothing is watched any more. */
  | { readonly kind: 'lost' }
  /** Given back, given up, or left as it is: nothing is watched any more. */
  | { readonly kind: 'released' };

/** `change`: of the claim, meanwhile. `claim`: one is there again. `lock`, `node`: another session has the lock, or the node's mark. */
export type Refusal = 'change' | 'claim' | 'lock' | 'node';

/** All since lock and claim were last seen to be the run's. */
interface Trouble {
  /** How often in a row the slot could not be seen, or not be taken back. */
  readonly failures: number;
  /** How often another session had the lock, or the node's mark. */
  readonly refusals: number;
  /** When Consul's silence began, in monotonic milliseconds. */
  readonly silentSinceMs?: number;
  /** What was said to be wrong. */
  readonly said?: string;
}

export type LeaseEvent =
  /** A look shows lock and claim to be the run's, or a transaction has made them so. */
  | { readonly kind: 'proved'; readonly sentMs: number }
  /** A look shows that one of them is missing. */
  | { readonly kind: 'missing' }
  /** What was to take it back was refused. */
  | { readonly kind: 'refused'; readonly by: Refusal }
  /** A request had no answer that says anything of the slot. */
  | {
      readonly kind: 'failed';
      readonly fault: string;
      readonly isTransient: boolean;
      readonly nowMs: number;
    }
  /** A claim was sent, and had no answer. */
  | { readonly kind: 'unanswered' }
  /** Another session took the place of one that can do nothing any more. */
  | { readonly kind: 'new-session' }
  /** An operator evicted the run, or the slot is somebody else's. */
  | { readonly kind: 'lost'; readonly why: Over }
  /** It is so late now. */
  | { readonly kind: 'tick'; readonly nowMs: number }
  | { readonly kind: 'released' };

/** What was asked of the run; in milliseconds. `killAfterMs`: TERM must go out this long before the deadline. */
export interface Terms {
  readonly hold: Hold;
  readonly ttlMs: number;
  readonly killAfterMs: number;
}

/** A slot that has just been granted. */
export const initialState = (provedMs: number): LeaseState => ({ kind: 'held', provedMs });

export const isWatched = ({ kind }: LeaseState): boolean => kind !== 'lost' && kind !== 'released';

/** The state after an event. What is heard once nothing is watched any more changes only what may still arrive. */
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

/** What goes on whatever becomes of the slot. */
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

/** Longer than an election, or an agent's restart by the command, takes. */
const QUIET_SILENCE_MS = 30_000;

/** The same trouble is said once. A silence is, once it lasts: with a hold that ends, the run's deadline speaks; with `forever` nothing else ever would. */
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

/** What there is to say of a step from one state to the next. */
export type News =
  | { readonly kind: 'unseen'; readonly fault: string }
  | { readonly kind: 'seen' }
  | { readonly kind: 'lock-taken'; readonly by: 'lock' | 'node' };

/** The session of a run of this node that gave up may last for a moment. */
const SAY_AFTER = 2;

/** Undefined: nothing. A lock that another session has may be so for good, and is said once. */
export function news(before: LeaseState, after: LeaseState): News | undefined {
  const was = troubleOf(before);
  const is = troubleOf(after);
  if (after.kind === 'held') return was?.said === undefined ? undefined : { kind: 'seen' };
  if (is?.said !== undefined && is.said !== was?.said) return { kind: 'unseen', fault: is.said };
  if (after.kind !== 'recovering' || is?.refusals !== SAY_AFTER + 1 || was?.refusals !== SAY_AFTER)
    return undefined;
  return { kind: 'lock-taken', by: after.refused === 'node' ? 'node' : 'lock' };
}

/** After a fault that may be over in a moment, and after a refusal, which somebody has to mend. */
const FAULTY: Growth = { shortestMs: 1_000, longestMs: 5_000 };
const REFUSED: Growth = { shortestMs: 1_000, longestMs: 30_000 };
const RETRY_MS = 500;
const LONGEST_RETRY_MS = 60_000;
/** Soon: it may be another's, and then the command has to end. */
const LOOK_MS = 100;

/**
 * How long to pause before the next look, in milliseconds. With a hold that ends there is a deadline to be met, and the reads
 * are the proofs: the pause stays as short as a look may wait.
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
      // Less and less often: each try is a write, and only a hand can help.
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
 * How long a look may wait, in milliseconds; undefined: as long as Consul may. With a hold that ends, the reads are the
 * proofs. One counts from when it was sent, so it is as old as its wait when it comes, and twice as old before the next one
 * does: half of the time between renewals keeps it younger than that.
 */
export const longestWaitMs = ({ hold, ttlMs }: Terms): number | undefined =>
  hold === 'forever' ? undefined : ttlMs / 6;

/** Two seconds for the kill, five more should two clocks differ by twice of what is allowed. */
const MARGIN_MS = 7_000;

/**
 * How long after the last proof the command must be dead, in milliseconds. Nobody can be granted the slot before 60 s
 * and the hold have passed: whoever marks the claim as missing sees that its lock is gone, so after that proof; the hosts'
 * clocks, by which others judge the mark and the hold's end, may differ by 5 s (docs/adr/0018).
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

/** When the command's tree must be dead, in monotonic milliseconds. */
export const deadlineMs = ({ provedMs }: LeaseState, { hold }: Terms): number => provedMs + deadAfterMs(hold);

/** When it must be told to end, in monotonic milliseconds. */
export const termAtMs = (state: LeaseState, terms: Terms): number =>
  deadlineMs(state, terms) - terms.killAfterMs;
