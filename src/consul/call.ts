/** One call of the `consul` package: a deadline for each try, faults of known classes, retries of the transient ones. */
import { EventEmitter } from 'node:events';
import type { IncomingMessage } from 'node:http';
import pRetry from 'p-retry';
import type { Clock, Log } from '../deps.ts';
import type { RunlockError } from '../errors.ts';
import { isRunlockError } from '../errors.ts';
import type { Token } from './token.ts';
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
export type Call = <T = unknown>(options: RetryOptions & Accepted, send: Send) => Promise<Reply<T>>;

interface Accepted {
  /** Statuses that are answers, not faults. */
  readonly accept?: readonly number[];
  /** Which responses are answers, where it is not those that are Consul's by their form. */
  readonly answers?: (response: Reply<unknown>[0]) => boolean;
}

interface Surroundings {
  readonly clock: Clock;
  readonly trouble: Trouble;
  readonly token: Token;
}

/** Sends, with a deadline for each try; classifies faults; tries transient ones again for `retryForMs`. */
export function caller(address: string, { clock, trouble, token }: Surroundings): Call {
  return async <T>(options: RetryOptions & Accepted, send: Send) => {
    const {
      signal,
      retryForMs = Infinity,
      electionMs = retryForMs,
      accept = [],
      answers = isConsuls,
    } = options;
    const startedMs = clock.monotonicMs();
    const answered = async (): Promise<Reply<T>> => {
      const sent = token.now();
      try {
        return (await sendOnce(send, options)) as Reply<T>;
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        const response = responseOf(error);
        if (response && (accept.includes(response.statusCode ?? 0) || options.answers?.(response)))
          return [response] as Reply<T>;
        const fault = classify(error, { address, rule: options.rule });
        // What was refused had no effect.
        if (isRunlockError(fault, 'forbidden') && token.replaced(sent)) return answered();
        throw fault;
      }
    };
    const attempt = async () => {
      const reply = await answered();
      if (!answers(reply[0])) throw notConsul(address);
      trouble.over();
      return reply;
    };
    return pRetry(attempt, {
      retries: retryForMs === 0 && electionMs === 0 ? 0 : Infinity,
      minTimeout: 100,
      maxTimeout: 5_000,
      randomize: true,
      signal,
      shouldRetry: ({ error }) => {
        const limitMs = isRunlockError(error, 'unreachable') ? retryForMs : electionMs;
        const again = isTransient(error) && clock.monotonicMs() - startedMs < limitMs;
        // Only what is tried again is said here: the last fault is the caller's to say.
        if (again) trouble.seen(error);
        return again;
      },
    });
  };
}

async function sendOnce(
  send: Send,
  { signal, timeoutMs = REQUEST_TIMEOUT_MS }: CallOptions,
): Promise<unknown> {
  signal.throwIfAborted();
  const ctx = Object.assign(new EventEmitter(), { includeResponse: true });
  const cancel = () => ctx.emit('cancel');
  signal.addEventListener('abort', cancel, { once: true });
  try {
    return await send({ ctx, timeout: Math.ceil(timeoutMs) });
  } finally {
    signal.removeEventListener('abort', cancel);
  }
}

export type Trouble = {
  seen: (error: RunlockError) => void;
  over: () => void;
  /** The fault that is being tried again now. */
  now: () => RunlockError | undefined;
};

/** A trouble shorter than this is not worth a line that cron would mail. */
const QUIET_TROUBLE_MS = 10_000;

/** One line when Consul has not answered for a while, one when it answers again; not one a try. */
export function watchTrouble(address: string, { clock, log }: { clock: Clock; log: Log }): Trouble {
  let since: number | undefined;
  let said = false;
  let fault: RunlockError | undefined;
  return {
    now: () => fault,
    seen: (error) => {
      fault = error;
      since ??= clock.monotonicMs();
      log('debug', error.message, { event: 'consul-fault', code: error.code });
      if (said || clock.monotonicMs() - since < QUIET_TROUBLE_MS) return;
      said = true;
      log('warning', `trying again: ${error.message}`, { event: 'consul-unreachable', address });
    },
    over: () => {
      if (said) log('warning', `Consul at ${address} answers again`, { event: 'consul-reachable', address });
      fault = undefined;
      since = undefined;
      said = false;
    },
  };
}
