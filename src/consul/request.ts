/**
 * One call of the `consul` package, with a deadline for each try, faults of known classes, and retries of transient
 * ones.
 */
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
  /** How long to retry after transient faults, in milliseconds; by default until `signal` aborts. */
  readonly retryForMs?: number;
  /** As `retryForMs`, while Consul answers but has no leader or takes no more requests; by default `retryForMs`. */
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
  /** Names the kind of request, to recognise the same kind again. Must not contain secrets. */
  readonly kind: string;
  /** The request waits for a change, so a missing answer is no fault for a while. */
  readonly isWatch?: boolean | undefined;
  /** Statuses that are answers, not faults. */
  readonly accept?: readonly number[];
  /** Which responses count as answers; by default those in Consul's usual form (`isConsuls`). */
  readonly answers?: (response: Reply<unknown>[0]) => boolean;
  /** Whether the answer has everything that Consul sends for such a request. */
  readonly isWhole?: (reply: Reply<T>) => boolean;
  /**
   * How long answers that are not Consul's count as lost answers, in milliseconds; by default as long as the call is
   * retried. For a request that is sent only once, the caller retries.
   */
  readonly oddForMs?: number;
}

/**
 * A proxy on the way may briefly answer in Consul's place (a page, a redirect, an empty answer), perhaps while it is
 * reloaded. Such answers are believed only if they go on for longer than this.
 */
export const ODD_MS = 3_000;
/** A request that is cancelled counts as a fault only if it had no answer for this long. */
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
        // A refused request had no effect, so it is safe to repeat it with a new token.
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

/** Tracks, for each kind of request, since when answers have not been Consul's. */
function watchOdd(clock: Clock) {
  const since = new Map<string, number>();
  return {
    over: (kind: string) => void since.delete(kind),
    /** Treats an answer that is not Consul's as a lost answer for the first `forMs`. */
    judge: (kind: string, error: unknown, forMs: number): unknown => {
      if (!isRunlockError(error, 'not-consul')) {
        since.delete(kind);
        return error;
      }
      const nowMs = clock.monotonicMs();
      // Forget old ones, which are unrelated: a request of that kind may never have been sent again.
      for (const [other, atMs] of since) if (nowMs - atMs > OLD_MS) since.delete(other);
      const sinceMs = since.get(kind) ?? nowMs;
      since.set(kind, sinceMs);
      return nowMs - sinceMs < forMs
        ? new RunlockError('unreachable', error.message, { cause: error })
        : error;
    },
  };
}

/** Throws the original fault when there are no more retries, instead of the `unreachable` that stood for it. */
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
  const { ctx, cancel } = cancellable();
  signal.addEventListener('abort', cancel, { once: true });
  try {
    return await send({ ctx, timeout: Math.ceil(timeoutMs) });
  } finally {
    signal.removeEventListener('abort', cancel);
  }
}

function cancellable() {
  const ctx = Object.assign(new EventEmitter(), { includeResponse: true, canceled: false });
  const cancel = () => {
    // A request that is about to be sent checks `canceled`; one that is under way listens for the event.
    ctx.canceled = true;
    ctx.emit('cancel');
  };
  return { ctx, cancel };
}

/** How long the answer to a request that was given up is still waited for; undoing it may take as long again. */
const LATE_MS = 3_000;

export interface Late {
  /** As `send`, but an answer that comes after the request was given up is undone. */
  send<T>(send: Send, undo: (answer: Reply<T>, context: Context) => Promise<unknown>): Send;
  /** Resolves when no such answer is waited for any more. Never rejects; takes a few seconds at most. */
  settled(): Promise<void>;
}

/**
 * For requests that make something in Consul: a connection that is closed does not keep Consul from making it, and then
 * nobody would know of it.
 */
export function watchLate(): Late {
  const late = new Set<Promise<unknown>>();
  const keep = async (
    sent: Promise<unknown>,
    cancel: () => void,
    undo: (answer: unknown) => Promise<unknown>,
  ) => {
    const limit = setTimeout(cancel, LATE_MS);
    try {
      const answer = await sent.finally(() => clearTimeout(limit));
      await undo(answer);
    } catch {
      // Nothing was made, or nobody will ever know.
    }
  };
  return {
    send:
      <T>(send: Send, undo: (answer: Reply<T>, context: Context) => Promise<unknown>) =>
      (given: Context) =>
        new Promise((resolve, reject) => {
          const { ctx, cancel } = cancellable();
          const sent = send({ ctx, timeout: given.timeout + LATE_MS });
          const stop = () => {
            clearTimeout(timer);
            given.ctx.off('cancel', aborted);
          };
          const giveUp = (why: string) => {
            stop();
            const kept = keep(sent, cancel, (answer) =>
              undo(answer as Reply<T>, { ...cancellable(), timeout: LATE_MS }),
            );
            late.add(kept);
            void kept.finally(() => late.delete(kept));
            reject(new Error(why));
          };
          const aborted = () => giveUp('request aborted');
          const timer = setTimeout(() => giveUp(`request timed out (${given.timeout}ms)`), given.timeout);
          given.ctx.once('cancel', aborted);
          sent.finally(stop).then(resolve, reject);
        }),
    settled: () => Promise.all(late).then(() => undefined),
  };
}

export type Trouble = {
  /** Reports a fault that will be retried now. */
  seen: (error: RunlockError) => void;
  /** Remembers the last fault of this kind of request, which only an answer to the same kind ends. */
  remember: (kind: string, error: RunlockError) => void;
  over: (kind: string) => void;
  /** Reports that a retried request has ended, with or without an answer. */
  left: () => void;
  /** The newest fault whose kind of request has had no answer since. */
  now: () => RunlockError | undefined;
};

/** Log a fault only after this long, because cron mails every line. */
const QUIET_TROUBLE_MS = 10_000;
/** Show a fault to a person at a terminal after this long. */
const SHOWN_TROUBLE_MS = 1_000;
/**
 * Forget a fault older than this once another request is answered, because its kind of request may never be sent
 * again.
 */
const OLD_MS = 30_000;

/**
 * Logs one line when Consul has not answered for a while and one when it answers again, instead of one for each try.
 */
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
