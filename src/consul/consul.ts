/**
 * The only way to Consul: every call has a deadline, takes an AbortSignal, and fails with a fault of a known class
 * (docs/adr/0003-consul-client.md). Only calls that are safe to repeat are ever sent twice.
 */
import type { IncomingMessage } from 'node:http';
import { ODD_MS, REQUEST_TIMEOUT_MS, caller, watchLate, watchTrouble } from './request.ts';
import type { CallOptions, RetryOptions } from './request.ts';
import { createClient } from './client.ts';
import type { ConsulSettings } from './env.ts';
import type { Emit } from '../events/events.ts';
import type { Clock } from '../platform/deps.ts';
import { forbidden, isTransient, isWorthAgain } from './faults.ts';
import { toInspection, isStoredEntry, isWireAnswer, toAnswer, toEntry, toSession, toWire } from './codec.ts';
import type {
  Certificate,
  Inspection,
  Question,
  Remote,
  Answer,
  Entry,
  Operation,
  SessionInfo,
  StoredEntry,
  StoredSession,
  WireAnswer,
} from './codec.ts';
import { serviceCalls } from './services.ts';
import type {
  HealthCheck,
  Maintenance,
  OfferedService,
  Right,
  ServiceCalls,
  ServiceEntry,
} from './services.ts';
import { createToken } from './env.ts';
import { addressOf, whereabouts } from './address.ts';
import type { Whereabouts } from './address.ts';
import { RunlockError } from '../errors.ts';

export { isTransient, isWorthAgain };
export type { CallOptions, RetryOptions };

export type { Answer, Entry, Operation, SessionInfo };

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
  /** The fault that is being retried now; undefined while Consul answers. */
  fault(): RunlockError | undefined;
  /** The fault where this token was found to lack a right without a request that Consul refused. `why`: in brackets. */
  denied(rule: string, why: string): RunlockError;
  /** Consistent read of one key. */
  get(key: string, options: ReadOptions): Promise<{ entry: Entry | undefined; index: number }>;
  /** Consistent read of every key below `prefix`. */
  list(prefix: string, options: ReadOptions): Promise<{ entries: Entry[]; index: number }>;
  /** Consistent read of the names of every key below `prefix`. */
  keys(prefix: string, options: RetryOptions): Promise<string[]>;
  /**
   * Consistent read of the index of the last change of any key that begins with `prefix`, deletions of the last minutes
   * among them. If no such key is or was there, it is the index of the last change of any key at all. `names`: the keys,
   * and the folders, of the first level.
   */
  indexOf(prefix: string, options: ReadOptions): Promise<{ names: readonly string[]; index: number }>;
  /** Consistent read of several prefixes at one moment. */
  readAll(operations: readonly Operation[], options: RetryOptions): Promise<readonly Entry[]>;
  /** As `readAll`, for reads that say which keys are there and which are not: a refusal is an answer. */
  tryRead(operations: readonly Operation[], options: RetryOptions): Promise<Answer>;
  /** Sent once: after a transient fault it is unknown whether it took effect. */
  transact(operations: readonly Operation[], options: CallOptions): Promise<Answer>;
  createSession(request: { name: string; ttl: string }, options: RetryOptions): Promise<string>;
  readSession(id: string, options: RetryOptions): Promise<SessionInfo | undefined>;
  /** Sent once. False: Consul does not know the session (any more). */
  renewSession(id: string, options: CallOptions): Promise<boolean>;
  destroySession(id: string, options: RetryOptions): Promise<void>;
  /**
   * Resolves when no session can come into being any more whose creation was given up, be it by its signal or by its deadline:
   * each such answer is waited for, and its session destroyed. Never rejects; takes a few seconds at most.
   */
  settled(): Promise<void>;
  /** For `doctor`: what the agent reports, and what its answer shows about the agent. */
  inspect(question: Question, options: RetryOptions): Promise<Inspection>;
  close(): void;
}

/**
 * How long to retry at the first contact: report soon that nothing is listening, but wait for an election (12.7 to
 * 17.5 s measured).
 */
export const FIRST_CONTACT = { retryForMs: 3_000, electionMs: 30_000 };

/**
 * Some agents of 1.22, and any with such a `write_timeout`, lose an answer that comes later than 30 s after its
 * question; Consul stretches a wait by up to 1/16. After a snapshot restore a blocking query returns only at its end
 * (measured).
 */
const LONGEST_WAIT_MS = 25_000;

interface Effects {
  readonly clock: Clock;
  readonly emit: Emit;
  /** Called with the fault once retries have taken a while, and with '' when they are over. */
  readonly onRetry?: (fault: string) => void;
}

export function connect(settings: ConsulSettings, effects: Effects): Consul {
  const token = createToken(settings);
  const client = createClient(settings, token);
  const trouble = watchTrouble(settings.address, effects);
  const late = watchLate();
  const call = caller(settings.address, { clock: effects.clock, trouble, token });
  const read = async (key: string, options: ReadOptions, recurse: boolean) => {
    const { query, timeoutMs } = readLimits(options);
    const kind = `${recurse ? 'list' : 'get'} ${key}`;
    const isWatch = 'index' in query;
    const [response, found] = await call<StoredEntry | StoredEntry[]>(
      { ...options, timeoutMs, kind, isWatch, isWhole: ([answer, body]) => isRead(answer, body) },
      (ctx) => client.kv.get({ key, recurse, consistent: true, ...query, ...ctx }),
    );
    return { entries: listed(found).map(toEntry), index: Number(response.headers['x-consul-index']) };
  };
  const transact = async (
    operations: readonly Operation[],
    options: RetryOptions & { readonly oddForMs?: number },
  ): Promise<Answer> => {
    const sent = token.now();
    const asked = { ...options, kind: kindOf(operations), accept: [409] };
    const [{ body }] = await call({ ...asked, isWhole: ([response]) => isWireAnswer(response.body) }, (ctx) =>
      client.transaction.create(
        operations.map((operation) => toWire(operation, settings)),
        { consistent: true, ...ctx },
      ),
    );
    const answer = toAnswer(body as WireAnswer);
    if (answer.kind === 'refused' && /^permission denied/i.test(answer.why)) {
      if (await token.replaced(sent)) return transact(operations, options);
      throw forbidden(
        { address: settings.address, rule: options.rule, isAnonymous: sent === undefined },
        answer.why,
      );
    }
    return answer;
  };
  return {
    ...serviceCalls({ client, call, address: settings.address, place: settings, limits: readLimits }),
    address: settings.address,
    fault: () => trouble.now(),
    denied: (rule, why) =>
      forbidden({ address: settings.address, rule, isAnonymous: token.now() === undefined }, why),
    get: async (key, options) => {
      const { entries, index } = await read(key, options, false);
      return { entry: entries[0], index };
    },
    list: (prefix, options) => read(prefix, options, true),
    keys: async (prefix, options) => {
      // A 404 means that there is no key. Unlike in its other reads, the package reports this as a fault.
      const [, found] = await call<string[]>({ ...options, kind: `keys ${prefix}`, accept: [404] }, (ctx) =>
        client.kv.keys({ key: prefix, consistent: true, ...ctx }),
      );
      return found ?? [];
    },
    indexOf: async (prefix, options) => {
      const { query, timeoutMs } = readLimits(options);
      const asked = { ...options, timeoutMs, kind: `index ${prefix}`, isWatch: 'index' in query };
      const [{ headers }, found] = await call<string[]>(
        { ...asked, accept: [404], isWhole: ([response]) => hasIndex(response) },
        (ctx) => client.kv.keys({ key: prefix, separator: '/', consistent: true, ...query, ...ctx }),
      );
      return { names: found ?? [], index: Number(headers['x-consul-index']) };
    },
    readAll: async (operations, options) => {
      const answer = await transact(operations, options);
      if (answer.kind === 'done') return answer.entries;
      throw new RunlockError(
        'bug',
        `Consul refused a read: ${answer.why}; please report this as a bug in runlock`,
      );
    },
    tryRead: transact,
    transact: (operations, options) => transact(operations, { ...options, ...SENT_ONCE }),
    createSession: async ({ name, ttl }, options) => {
      const request = { name, ttl, behavior: 'delete', lockdelay: '0s', checks: [] };
      const isWhole = ([, made]: readonly [unknown, { ID?: unknown }?]) => typeof made?.ID === 'string';
      const asked = { ...options, kind: 'session create', isWhole };
      const send = late.send<{ ID?: unknown }>(
        (ctx) => client.session.create({ ...request, ...ctx }),
        ([, made], ctx) => client.session.destroy({ id: made?.ID, ...ctx }),
      );
      const [, created] = await call<{ ID?: unknown }>(asked, send);
      return created?.ID as string;
    },
    readSession: async (id, options) => {
      const isWhole = ([response]: readonly [{ body?: unknown }, ...unknown[]]) =>
        Array.isArray(response.body);
      const asked = { ...options, kind: 'session info', isWhole };
      const [, found] = await call<StoredSession>(asked, (ctx) =>
        client.session.info({ id, consistent: true, ...ctx }),
      );
      return found === undefined ? undefined : toSession(found);
    },
    renewSession: async (id, options) => {
      const sentOnce = { retryForMs: 0, oddForMs: ODD_MS };
      const [response] = await call(
        { ...options, ...sentOnce, kind: 'session renew', accept: [404] },
        (ctx) => client.session.renew({ id, ...ctx }),
      );
      return response.statusCode !== 404;
    },
    destroySession: async (id, options) => {
      await call({ ...options, kind: 'session destroy' }, (ctx) => client.session.destroy({ id, ...ctx }));
    },
    inspect: async (question, options) => {
      const [response] = await call({ ...options, kind: question }, async (ctx) => [
        await client._get({ name: 'inspect', path: question, query: {}, ...ctx }),
      ]);
      return toInspection(response);
    },
    settled: () => late.settled(),
    close: () => {
      client.destroy();
    },
  };
}

/** No retries here: the caller retries in its own way, as after a lost answer. */
const SENT_ONCE = { retryForMs: 0, oddForMs: ODD_MS };

const listed = <T>(found: T | T[] | undefined): T[] =>
  found === undefined ? [] : Array.isArray(found) ? found : [found];

/** Whether this is Consul's answer to a read: always with an index, and 404 (not an empty list) if there is nothing. */
function isRead(response: IncomingMessage, body: unknown): boolean {
  if (!hasIndex(response)) return false;
  const found = listed(body);
  return response.statusCode === 404 || (found.length > 0 && found.every(isStoredEntry));
}

const hasIndex = ({ headers }: IncomingMessage) => /^\d+$/.test(String(headers['x-consul-index']));

/** The kind of a transaction: its verbs and key types, without session and run ids, of which there are many. */
const kindOf = (operations: readonly Operation[]): string =>
  operations.map(({ verb, key }) => `${verb} ${/\/\.[a-z]+/.exec(key)?.[0] ?? ''}`).join(', ');

function readLimits(options: ReadOptions): { query: object; timeoutMs: number } {
  const timeoutMs = options.timeoutMs ?? REQUEST_TIMEOUT_MS;
  if (options.index === undefined || options.index <= 0) return { query: {}, timeoutMs };
  const waitMs = Math.max(1, Math.ceil(Math.min(options.waitMs ?? LONGEST_WAIT_MS, LONGEST_WAIT_MS)));
  return {
    query: { index: String(options.index), wait: `${waitMs}ms` },
    timeoutMs: timeoutMs + (waitMs * 17) / 16,
  };
}
