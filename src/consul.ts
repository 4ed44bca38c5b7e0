/**
 * The one way to Consul: every call has a deadline, takes an AbortSignal, and fails with a fault of a known class
 * (docs/adr/0003-consul-client.md). Only calls that may safely be sent twice are ever sent twice.
 */
import { EventEmitter } from 'node:events';
import type { IncomingMessage } from 'node:http';
import pRetry from 'p-retry';
import { createClient } from './consul/client.ts';
import type { ConsulSettings } from './consul/env.ts';
import type { Clock, Log } from './deps.ts';
import { classify, forbidden, isTransient, notConsul, responseOf } from './consul/faults.ts';
import { toAnswer, toEntry, toSession, toWire } from './consul/wire.ts';
import type {
  Answer,
  Entry,
  Operation,
  Session,
  StoredEntry,
  StoredSession,
  WireAnswer,
} from './consul/wire.ts';
import { RunlockError } from './errors.ts';

export { isTransient };

export type { Answer, Entry, Operation, Session };

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
}

export interface ReadOptions extends RetryOptions {
  /** Wait for a change past this index … */
  readonly index?: number | undefined;
  /** … for this long, in milliseconds. Consul stretches it by up to 1/16. */
  readonly waitMs?: number;
}

export interface Consul {
  readonly address: string;
  /** Consistent read of one key. */
  get(key: string, options: ReadOptions): Promise<{ entry: Entry | undefined; index: number }>;
  /** Consistent read of every key below `prefix`. */
  list(prefix: string, options: ReadOptions): Promise<{ entries: Entry[]; index: number }>;
  /** Consistent read of several prefixes at one moment. */
  readAll(operations: readonly Operation[], options: RetryOptions): Promise<readonly Entry[]>;
  /** Sent once: after a transient fault nobody knows whether it took effect. */
  transact(operations: readonly Operation[], options: CallOptions): Promise<Answer>;
  createSession(request: { name: string; ttl: string }, options: RetryOptions): Promise<string>;
  readSession(id: string, options: RetryOptions): Promise<Session | undefined>;
  /** Sent once. False: Consul does not know the session (any more). */
  renewSession(id: string, options: CallOptions): Promise<boolean>;
  destroySession(id: string, options: RetryOptions): Promise<void>;
  close(): void;
}

const REQUEST_TIMEOUT_MS = 10_000;
/** After a snapshot restore a blocking query returns only at its end (measured), so none is longer. */
const LONGEST_WAIT_MS = 60_000;

export function connect(settings: ConsulSettings, effects: { clock: Clock; log: Log }): Consul {
  const client = createClient(settings);
  const call = caller(settings.address, watchTrouble(settings.address, effects));
  const read = async (key: string, options: ReadOptions, recurse: boolean) => {
    const { query, timeoutMs } = readLimits(options);
    const [response, found] = await call<StoredEntry | StoredEntry[]>({ ...options, timeoutMs }, (ctx) =>
      client.kv.get({ key, recurse, consistent: true, ...query, ...ctx }),
    );
    const items = found === undefined ? [] : Array.isArray(found) ? found : [found];
    return { entries: items.map(toEntry), index: Number(response.headers['x-consul-index'] ?? 0) };
  };
  const transact = async (operations: readonly Operation[], options: RetryOptions) => {
    const [response, body] = await call<WireAnswer>({ ...options, accept: [409] }, (ctx) =>
      client.transaction.create(operations.map(toWire), { consistent: true, ...ctx }),
    );
    const answer = toAnswer(response.statusCode === 409 ? response.body : body);
    if (answer.kind === 'refused' && /^permission denied/i.test(answer.why)) {
      throw forbidden(settings.address, answer.why, options.rule);
    }
    return answer;
  };
  return {
    address: settings.address,
    get: async (key, options) => {
      const { entries, index } = await read(key, options, false);
      return { entry: entries[0], index };
    },
    list: (prefix, options) => read(prefix, options, true),
    readAll: async (operations, options) => {
      const answer = await transact(operations, options);
      if (answer.kind === 'done') return answer.entries;
      throw new RunlockError(
        'bug',
        `Consul refused a read: ${answer.why}; please report this as a bug in runlock`,
      );
    },
    transact: (operations, options) => transact(operations, { ...options, retryForMs: 0 }),
    createSession: async ({ name, ttl }, options) => {
      const request = { name, ttl, behavior: 'delete', lockdelay: '0s', checks: [] };
      const [, created] = await call<{ ID: string }>(options, (ctx) =>
        client.session.create({ ...request, ...ctx }),
      );
      if (created === undefined) throw notConsul(settings.address);
      return created.ID;
    },
    readSession: async (id, options) => {
      const [, found] = await call<StoredSession>(options, (ctx) =>
        client.session.info({ id, consistent: true, ...ctx }),
      );
      return found === undefined ? undefined : toSession(found);
    },
    renewSession: async (id, options) => {
      const [response] = await call({ ...options, retryForMs: 0, accept: [404] }, (ctx) =>
        client.session.renew({ id, ...ctx }),
      );
      return response.statusCode !== 404;
    },
    destroySession: async (id, options) => {
      await call(options, (ctx) => client.session.destroy({ id, ...ctx }));
    },
    close: () => {
      client.destroy();
    },
  };
}

function readLimits(options: ReadOptions): { query: object; timeoutMs: number } {
  const timeoutMs = options.timeoutMs ?? REQUEST_TIMEOUT_MS;
  if (options.index === undefined || options.index <= 0) return { query: {}, timeoutMs };
  const waitMs = Math.max(1, Math.ceil(Math.min(options.waitMs ?? LONGEST_WAIT_MS, LONGEST_WAIT_MS)));
  return {
    query: { index: String(options.index), wait: `${waitMs}ms` },
    timeoutMs: timeoutMs + (waitMs * 17) / 16,
  };
}

/** What the package answers when asked to include the response. */
type Reply<T> = [IncomingMessage & { body?: unknown }, T?];
type Context = { ctx: EventEmitter; timeout: number };
type Send = (context: Context) => Promise<unknown>;
type Call = <T = unknown>(
  options: RetryOptions & { accept?: readonly number[] },
  send: Send,
) => Promise<Reply<T>>;

/** Sends, with a deadline for each try; classifies faults; tries transient ones again for `retryForMs`. */
function caller(address: string, trouble: Trouble): Call {
  return async <T>(options: RetryOptions & { accept?: readonly number[] }, send: Send) => {
    const { signal, retryForMs = Infinity, accept = [] } = options;
    const attempt = async () => {
      try {
        const reply = await sendOnce(send, options);
        trouble.over();
        return reply as Reply<T>;
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        const response = responseOf(error);
        if (response?.statusCode !== undefined && accept.includes(response.statusCode))
          return [response] as Reply<T>;
        throw classify(error, { address, rule: options.rule });
      }
    };
    return pRetry(attempt, {
      retries: retryForMs === 0 ? 0 : Infinity,
      maxRetryTime: retryForMs,
      minTimeout: 100,
      maxTimeout: 5_000,
      randomize: true,
      signal,
      shouldRetry: ({ error }) => isTransient(error),
      onFailedAttempt: ({ error }) => {
        if (isTransient(error)) trouble.seen(error);
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

type Trouble = { seen: (error: RunlockError) => void; over: () => void };

/** A trouble shorter than this is not worth a line that cron would mail. */
const QUIET_TROUBLE_MS = 10_000;

/** One line when Consul has not answered for a while, one when it answers again; not one a try. */
function watchTrouble(address: string, { clock, log }: { clock: Clock; log: Log }): Trouble {
  let since: number | undefined;
  let said = false;
  return {
    seen: (error) => {
      since ??= clock.monotonicMs();
      log('debug', error.message, { event: 'consul-fault', code: error.code });
      if (said || clock.monotonicMs() - since < QUIET_TROUBLE_MS) return;
      said = true;
      log('warning', `${error.message}; trying again`, { event: 'consul-unreachable', address });
    },
    over: () => {
      if (said) log('warning', `Consul at ${address} answers again`, { event: 'consul-reachable', address });
      since = undefined;
      said = false;
    },
  };
}
