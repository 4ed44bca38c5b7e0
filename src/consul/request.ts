/** One call of the `consul` package: a deadline for each try, faults of known classes, retries of the transient ones. */
import { EventEmitter } from 'node:events';
import type { IncomingMessage } from 'node:http';
import pRetry from 'p-retry';
import type { Emit } from '../events/events.ts';
import type { Clock } from '../platform/deps.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import type { Token } from './env.ts';
import { classify, isConsuls, isTransient, notConsul, responseOf } from './faults.ts';

export interface CallOptions {
  readonly signal: AbortSignal;
  /** Longest time for one request, in milliseconds; 10 s unless given. */
  readonly timeoutMs?: number;
  /** The rule that the call needs, for the message when Consul refuses it. */
  readonly rule?: string;
}

export interface RetryOptions extends CallOptions {
  /** How long transient faults are tried again, in milliseconds; for ever (until `signal`) unless given. */
  readonly retryForMs?: number;
  /** The same while Consul answers but has no leader, or takes no more requests; `retryForMs` unless given. */
  readonly electionMs?: number;
}

/** Longest time for one request unless a call says otherwise, in milliseconds. */
export const REQUEST_TIMEOUT_MS = 10_000;

/** What the package answers when asked to include the response. */
type Reply<T> = [IncomingMessage & { body?: unknown }, T?];
type Context = { ctx: EventEmitter; timeout: number };
type Send = (context: Context) => Promise<unknown>;
export type Call = <T = unknown>(options: RetryOptions & Asked<T>, send: Send) => Promise<Reply<T>>;

interface Asked<T> {
  /** What is asked for, so that the same request is known again; it may hold no secret. */
  readonly kind: string;
  /** It waits for a change: no answer for a while is no fault. */
  readonly isWatch?: boolean | undefined;
  /** Statuses that are answers, not faults. */
  readonly accept?: readonly number[];
  /** Which responses are answers, where it is not those that are Consul's by their form. */
  readonly answers?: (response: Reply<unknown>[0]) => boolean;
  /** Whether what came is all that Consul says to such a request. */
  readonly isWhole?: (reply: Reply<T>) => boolean;
  /**
   * How long such answers as are not Consul's count as lost, in milliseconds; by default as long as the call is tried
   * again. Of one that is sent once its caller tries again.
   */
  readonly oddForMs?: number;
}

/**
 * A proxy on the way may answer in Consul's place once (a page, a redirect, nothing at all), while it is reloaded perhaps.
 * What goes on for longer is believed.
 */
export const ODD_MS = 3_000;
/** A request without an answer for less than this is no fault when it is given up. */
const SLOW_MS = 1_000;

interface Surroundings {
  readonly clock: Clock;
  readonly trouble: Trouble;
  readonly token: Token;
}

/** Sends, with a deadline for each try; classifies faults; tries transient ones again for `retryForMs`. */
export function caller(address: string, { clock, trouble, token }: Surroundings): Call {
  const odd = watchOdd(clock);
  return async <T>(options: RetryOptions & Asked<T>, send: Send) => {
    const {
      signal,
      kind,
      retryForMs = Infinity,
      electionMs = retryForMs,
      accept = [],
      answers = isConsuls,
      isWhole = () => true,
      oddForMs = Math.min(retryForMs, ODD_MS),
    } = options;
    const startedMs = clock.monotonicMs();
    const answered = async (): Promise<Reply<T>> => {
      const sent = token.now();
      const sentMs = clock.monotonicMs();
      try {
        return (await sendOnce(send, options)) as Reply<T>;
      } catch (error) {
        if (signal.aborted) {
          const silent = options.isWatch !== true && clock.monotonicMs() - sentMs >= SLOW_MS;
          if (silent) trouble.remember(kind, noAnswer(address));
          throw signal.reason;
        }
        const response = responseOf(error);
        if (response && (accept.includes(response.statusCode ?? 0) || options.answers?.(response)))
          return [response] as Reply<T>;
        const fault = classify(error, { address, rule: options.rule, isAnonymous: sent === undefined });
        // What was refused had no effect.
        if (isRunlockError(fault, 'forbidden') && (await token.replaced(sent))) return answered();
        throw fault;
      }
    };
    const attempt = async () => {
      try {
        const reply = await answered();
        if (!answers(reply[0]) || !isWhole(reply)) throw notConsul(address);
        odd.over(kind);
        trouble.over(kind);
        return reply;
      } catch (error) {
        const fault = odd.judge(kind, error, oddForMs);
        if (isTransient(fault)) trouble.remember(kind, fault);
        throw fault;
      }
    };
    const reply = pRetry(attempt, {
      retries: retryForMs === 0 && electionMs === 0 ? 0 : Infinity,
      minTimeout: 100,
      maxTimeout: 5_000,
      randomize: true,
      signal,
      shouldRetry: ({ error }) => {
        const limitMs = isRunlockError(error, 'unreachable') ? retryForMs : electionMs;
        const again = isTransient(error) && clock.monotonicMs() - startedMs < limitMs;
        // Log retried faults only; the caller reports the final one.
        if (again) trouble.seen(error);
        return again;
      },
    });
    return retryForMs === 0 ? reply : reply.catch(throwBelieved).finally(() => trouble.left());
  };
}

/** Answers that are not Consul's, of each kind of request since the last good one. */
function watchOdd(clock: Clock) {
  const since = new Map<string, number>();
  return {
    over: (kind: string) => void since.delete(kind),
    /** What is odd counts as lost for `forMs`. */
    judge: (kind: string, error: unknown, forMs: number): unknown => {
      if (!isRunlockError(error, 'not-consul')) {
        since.delete(kind);
        return error;
      }
      const nowMs = clock.monotonicMs();
      // One that is long past has nothing to do with this one: its request may never have been sent again.
      for (const [other, atMs] of since) if (nowMs - atMs > OLD_MS) since.delete(other);
      const sinceMs = since.get(kind) ?? nowMs;
      since.set(kind, sinceMs);
      return nowMs - sinceMs < forMs
        ? new RunlockError('unreachable', error.message, { cause: error })
        : error;
    },
  };
}

/** What was taken for lost, once it is not tried again. */
function throwBelieved(error: unknown): never {
  const cause = isRunlockError(error, 'unreachable') ? error.cause : undefined;
  throw isRunlockError(cause, 'not-consul') ? cause : error;
}

function noAnswer(address: string): RunlockError {
  return new RunlockError('unreachable', `Consul at ${address} did not answer; is the agent healthy?`);
}

async function sendOnce(
  send: Send,
  { signal, timeoutMs = REQUEST_TIMEOUT_MS }: CallOptions,
): Promise<unknown> {
  signal.throwIfAborted();
  const ctx = Object.assign(new EventEmitter(), { includeResponse: true, canceled: false });
  const cancel = () => {
    // Looked at by one that is about to be sent, heard by one that is under way.
    ctx.canceled = true;
    ctx.emit('cancel');
  };
  signal.addEventListener('abort', cancel, { once: true });
  try {
    return await send({ ctx, timeout: Math.ceil(timeoutMs) });
  } finally {
    signal.removeEventListener('abort', cancel);
  }
}

export type Trouble = {
  /** A fault that is tried again now. */
  seen: (error: RunlockError) => void;
  /** The last fault of this kind of request; another kind's answers say nothing of it. */
  remember: (kind: string, error: RunlockError) => void;
  over: (kind: string) => void;
  /** A request that was tried again is no more, with an answer or without. */
  left: () => void;
  /** The newest fault after which its kind of request got no answer yet. */
  now: () => RunlockError | undefined;
};

/** A trouble shorter than this is not worth a line that cron would mail. */
const QUIET_TROUBLE_MS = 10_000;
/** Somebody at a terminal wonders by then. */
const SHOWN_TROUBLE_MS = 1_000;
/** A fault that is older, while other requests are answered, is over: that kind of request may never be sent again. */
const OLD_MS = 30_000;

/** One line when Consul has not answered for a while, one when it answers again; not one a try. */
export function watchTrouble(
  address: string,
  { clock, emit, onRetry }: { clock: Clock; emit: Emit; onRetry?: (fault: string) => void },
): Trouble {
  let since: number | undefined;
  let shown = false;
  const hide = () => {
    if (shown) onRetry?.('');
    shown = false;
  };
  let said = false;
  const faults = new Map<string, { fault: RunlockError; atMs: number }>();
  return {
    now: () => [...faults.values()].sort((a, b) => a.atMs - b.atMs).at(-1)?.fault,
    remember: (kind, fault) => void faults.set(kind, { fault, atMs: clock.monotonicMs() }),
    seen: (error) => {
      since ??= clock.monotonicMs();
      emit({ event: 'consul-fault', code: error.code, detail: { fault: error.message } });
      if (clock.monotonicMs() - since >= SHOWN_TROUBLE_MS) {
        shown = true;
        onRetry?.(error.message);
      }
      if (said || clock.monotonicMs() - since < QUIET_TROUBLE_MS) return;
      said = true;
      emit({ event: 'consul-unreachable', address, detail: { fault: error.message } });
    },
    left: hide,
    over: (kind) => {
      hide();
      if (said) emit({ event: 'consul-reachable', address });
      faults.delete(kind);
      const nowMs = clock.monotonicMs();
      for (const [other, { atMs }] of faults) if (nowMs - atMs > OLD_MS) faults.delete(other);
      since = undefined;
      said = false;
    },
  };
}
