/**
 * The one way to Consul: every call has a deadline, takes an AbortSignal, and fails with a fault of a known class
 * (docs/adr/0003-consul-client.md). Only calls that may safely be sent twice are ever sent twice.
 */
import { REQUEST_TIMEOUT_MS, caller, watchTrouble } from './consul/call.ts';
import type { CallOptions, RetryOptions } from './consul/call.ts';
import { createClient } from './consul/client.ts';
import type { ConsulSettings } from './consul/env.ts';
import type { Clock, Log } from './deps.ts';
import { forbidden, isTransient, notConsul } from './consul/faults.ts';
import { toInspection } from './consul/inspect.ts';
import type { Certificate, Inspection, Question, Remote } from './consul/inspect.ts';
import { serviceCalls } from './consul/services.ts';
import type {
  HealthCheck,
  Maintenance,
  OfferedService,
  Right,
  ServiceCalls,
  ServiceEntry,
} from './consul/services.ts';
import { createToken } from './consul/token.ts';
import { addressOf, whereabouts } from './consul/where.ts';
import type { Whereabouts } from './consul/where.ts';
import { isWireAnswer, toAnswer, toEntry, toSession, toWire } from './consul/wire.ts';
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
export type { CallOptions, RetryOptions };

export type { Answer, Entry, Operation, Session };

export type { HealthCheck, Maintenance, OfferedService, Right, ServiceEntry };

export { addressOf, whereabouts };
export type { Certificate, Inspection, Question, Remote, Whereabouts };

export interface ReadOptions extends RetryOptions {
  /** Wait for a change past this index … */
  readonly index?: number | undefined;
  /** … for this long, in milliseconds. Consul stretches it by up to 1/16. */
  readonly waitMs?: number;
}

export interface Consul extends ServiceCalls {
  readonly address: string;
  /** The fault that is being tried again now; undefined while Consul answers. */
  fault(): RunlockError | undefined;
  /** Consistent read of one key. */
  get(key: string, options: ReadOptions): Promise<{ entry: Entry | undefined; index: number }>;
  /** Consistent read of every key below `prefix`. */
  list(prefix: string, options: ReadOptions): Promise<{ entries: Entry[]; index: number }>;
  /** Consistent read of the names of every key below `prefix`. */
  keys(prefix: string, options: RetryOptions): Promise<string[]>;
  /** Consistent read of several prefixes at one moment. */
  readAll(operations: readonly Operation[], options: RetryOptions): Promise<readonly Entry[]>;
  /** Sent once: after a transient fault nobody knows whether it took effect. */
  transact(operations: readonly Operation[], options: CallOptions): Promise<Answer>;
  createSession(request: { name: string; ttl: string }, options: RetryOptions): Promise<string>;
  readSession(id: string, options: RetryOptions): Promise<Session | undefined>;
  /** Sent once. False: Consul does not know the session (any more). */
  renewSession(id: string, options: CallOptions): Promise<boolean>;
  destroySession(id: string, options: RetryOptions): Promise<void>;
  /** For `doctor`: what the agent says of itself, and what its answer shows of the agent. */
  inspect(question: Question, options: RetryOptions): Promise<Inspection>;
  close(): void;
}

/**
 * How long the first contact is tried: where nothing listens should be said soon, an election (12.7 to 17.5 s were
 * measured) is worth waiting for.
 */
export const FIRST_CONTACT = { retryForMs: 3_000, electionMs: 30_000 };

/**
 * Some agents of 1.22, and any with such a `write_timeout`, lose an answer that comes later than 30 s after its question;
 * Consul stretches a wait by up to 1/16. After a snapshot restore a blocking query returns only at its end (measured).
 */
const LONGEST_WAIT_MS = 25_000;

export function connect(settings: ConsulSettings, effects: { clock: Clock; log: Log }): Consul {
  const token = createToken(settings);
  const client = createClient(settings, token);
  const trouble = watchTrouble(settings.address, effects);
  const call = caller(settings.address, { clock: effects.clock, trouble, token });
  const read = async (key: string, options: ReadOptions, recurse: boolean) => {
    const { query, timeoutMs } = readLimits(options);
    const [response, found] = await call<StoredEntry | StoredEntry[]>({ ...options, timeoutMs }, (ctx) =>
      client.kv.get({ key, recurse, consistent: true, ...query, ...ctx }),
    );
    const items = found === undefined ? [] : Array.isArray(found) ? found : [found];
    const index = response.headers['x-consul-index'];
    if (index === undefined) throw notConsul(settings.address);
    return { entries: items.map(toEntry), index: Number(index) };
  };
  const transact = async (operations: readonly Operation[], options: RetryOptions): Promise<Answer> => {
    const sent = token.now();
    const [response, body] = await call<WireAnswer>({ ...options, accept: [409] }, (ctx) =>
      client.transaction.create(
        operations.map((operation) => toWire(operation, settings)),
        { consistent: true, ...ctx },
      ),
    );
    const raw: unknown = response.statusCode === 409 ? response.body : body;
    if (!isWireAnswer(raw)) throw notConsul(settings.address);
    const answer = toAnswer(raw);
    if (answer.kind === 'refused' && /^permission denied/i.test(answer.why)) {
      if (token.replaced(sent)) return transact(operations, options);
      throw forbidden(settings.address, answer.why, options.rule);
    }
    return answer;
  };
  return {
    ...serviceCalls({ client, call, address: settings.address, place: settings, limits: readLimits }),
    address: settings.address,
    fault: () => trouble.now(),
    get: async (key, options) => {
      const { entries, index } = await read(key, options, false);
      return { entry: entries[0], index };
    },
    list: (prefix, options) => read(prefix, options, true),
    keys: async (prefix, options) => {
      // Unlike its other reads, the package takes Consul's 404 for a fault here: there is no key.
      const [, found] = await call<string[]>({ ...options, accept: [404] }, (ctx) =>
        client.kv.keys({ key: prefix, consistent: true, ...ctx }),
      );
      return found ?? [];
    },
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
      const [, created] = await call<{ ID?: unknown }>(options, (ctx) =>
        client.session.create({ ...request, ...ctx }),
      );
      if (typeof created?.ID !== 'string') throw notConsul(settings.address);
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
    inspect: async (question, options) => {
      const [response] = await call(options, async (ctx) => [
        await client._get({ name: 'inspect', path: question, query: {}, ...ctx }),
      ]);
      return toInspection(response);
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
