/** A Consul session that is kept alive, with a signal that aborts when the session is lost. */
import type { Consul, RetryOptions, SessionInfo } from './consul.ts';
import { isTransient } from './faults.ts';
import type { Deps } from '../platform/deps.ts';
import { RunlockError, isRunlockError, reasonOf } from '../errors.ts';
import { growingMs } from './retry.ts';
import type { Growth } from './retry.ts';

export interface Session {
  readonly id: string;
  /** The node that the session belongs to: the agent's own name. */
  readonly node: string;
  /**
   * Aborts when Consul says that the session is gone, or after `close`. Never aborts only because Consul does not
   * answer.
   */
  readonly lost: AbortSignal;
  /** Stops renewing and destroys the session, which deletes all keys that it locks. May be called twice. */
  close(options: { signal: AbortSignal }): Promise<void>;
}

interface SessionRequest {
  readonly name: string;
  readonly ttlMs: number;
  readonly signal: AbortSignal;
  /** How long to retry after transient faults while the session is created, in milliseconds. */
  readonly retryForMs?: number;
  /** The same while Consul answers that it has no leader. */
  readonly electionMs?: number;
}

const RENEW_TIMEOUT_MS = 5_000;
const RETRY: Growth = { shortestMs: 1_000, longestMs: 5_000 };

/**
 * Creates a session and keeps it alive. Its end deletes the keys that it locks; it has no health checks and no
 * lock-delay.
 * @throws RunlockError when Consul does not create the session as requested.
 */
export async function openSession(
  effects: { consul: Consul; deps: Deps },
  request: SessionRequest,
): Promise<Session> {
  const { consul, deps } = effects;
  const { name, ttlMs, ...limits } = request;
  const ttl = `${ttlMs / 1000}s`;
  const rule = 'session "NODE" { policy = "write" }, where NODE is the name of the local agent\'s node';
  const sinceMs = deps.clock.monotonicMs();
  const id = await consul.createSession({ name, ttl }, { ...limits, rule });
  const lost = new AbortController();
  const closed = new AbortController();
  // Start renewing now: the TTL runs already, and with a slow Consul the read below may take longer than the TTL.
  void keepAlive(effects, { id, ttlMs, sinceMs, lost, closed: closed.signal });
  const made = await readBack(effects, { id, ttl }, { ...limits, rule }).catch(async (error: unknown) => {
    closed.abort();
    await destroyQuietly(effects, id);
    throw error;
  });
  return {
    id,
    node: made.node,
    lost: lost.signal,
    close: async (options) => {
      closed.abort();
      lost.abort(new RunlockError('session-lost', 'the session is closed'));
      await consul.destroySession(id, { ...options, timeoutMs: RENEW_TIMEOUT_MS });
    },
  };
}

/**
 * Closes a session that is no longer needed. Never throws: without an answer from Consul the session expires by
 * itself.
 */
export async function leaveSession(
  { deps }: { deps: Deps },
  session: Session,
  patience: { readonly retryForMs?: number } = {},
): Promise<void> {
  const options = { signal: AbortSignal.timeout(RENEW_TIMEOUT_MS), ...patience };
  await session.close(options).catch((error: unknown) => {
    deps.emit({ event: 'session-left', detail: { fault: reasonOf(error) } });
  });
}

/** As `openSession`, but if the agents refuse such a short TTL, uses the shortest that they accept. */
export async function openShortSession(
  effects: { consul: Consul; deps: Deps },
  request: SessionRequest,
): Promise<Session> {
  try {
    return await openSession(effects, request);
  } catch (error) {
    const leastMs = isRunlockError(error, 'config') ? leastTtlMs(error.message) : undefined;
    if (leastMs === undefined || leastMs <= request.ttlMs) throw error;
    return openSession(effects, { ...request, ttlMs: leastMs });
  }
}

/** `session_ttl_min`, as Consul names it when it refuses a TTL: `must be between [1m30s=24h0m0s]`. Pure. */
export function leastTtlMs(message: string): number | undefined {
  const found = /Invalid Session TTL.* between \[(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?=/.exec(message);
  if (!found) return undefined;
  const [, hours = '0', minutes = '0', seconds = '0'] = found;
  return Math.ceil((Number(hours) * 60 + Number(minutes)) * 60 + Number(seconds)) * 1_000;
}

/**
 * Reads the new session back, because Consul silently ignores the request's options if its body was chunked or
 * dropped.
 */
async function readBack(
  { consul }: { consul: Consul },
  { id, ttl }: { id: string; ttl: string },
  options: RetryOptions,
): Promise<SessionInfo> {
  const made = await consul.readSession(id, options);
  if (!made) {
    throw new RunlockError(
      'session-lost',
      `Consul at ${consul.address} lost the session that runlock had just created; try again`,
    );
  }
  if (made.ttl === ttl && made.behavior === 'delete' && made.lockDelayMs === 0 && made.checks.length === 0)
    return made;
  const got = `TTL '${made.ttl}', behaviour '${made.behavior}', lock-delay ${made.lockDelayMs} ms, ${made.checks.length} checks`;
  throw new RunlockError(
    'not-consul',
    `Consul at ${consul.address} created a different session than requested (${got}; requested TTL '${ttl}', 'delete', none, none); is a proxy in between dropping request bodies?`,
  );
}

/** Destroys a session that holds nothing yet. Without an answer from Consul the session expires by itself. */
async function destroyQuietly({ consul, deps }: { consul: Consul; deps: Deps }, id: string): Promise<void> {
  const options = { signal: AbortSignal.timeout(RENEW_TIMEOUT_MS), retryForMs: 0 };
  await consul.destroySession(id, options).catch((error: unknown) => {
    deps.emit({ event: 'session-left', detail: { session: id, fault: reasonOf(error) } });
  });
}

interface KeepAlive {
  readonly id: string;
  readonly ttlMs: number;
  /** When the session was requested, in monotonic milliseconds. */
  readonly sinceMs: number;
  readonly lost: AbortController;
  readonly closed: AbortSignal;
}

/** Renews the session every third of the TTL, however long the answers take. */
async function keepAlive({ consul, deps }: { consul: Consul; deps: Deps }, it: KeepAlive): Promise<void> {
  const { clock } = deps;
  const pauseMs = it.ttlMs / 3;
  const timeoutMs = Math.min(pauseMs, RENEW_TIMEOUT_MS);
  let dueMs = it.sinceMs + pauseMs;
  let failures = 0;
  try {
    for (;;) {
      await clock.sleep(Math.max(0, dueMs - clock.monotonicMs()), { signal: it.closed });
      dueMs = await renewOnce();
    }
  } catch (error) {
    if (!it.closed.aborted) it.lost.abort(error);
  }

  /** Renews once. Returns when the next renewal is due, in monotonic milliseconds. */
  async function renewOnce(): Promise<number> {
    const sentMs = clock.monotonicMs();
    const soonMs = () => clock.monotonicMs() + Math.min(growingMs(failures++, RETRY, deps.random), pauseMs);
    try {
      if (await consul.renewSession(it.id, { signal: it.closed, timeoutMs })) {
        failures = 0;
        return sentMs + pauseMs;
      }
      // A new leader may not know the session before it has read its own log. A consistent read waits for that.
      if (await consul.readSession(it.id, { signal: it.closed, timeoutMs, retryForMs: 0 })) return soonMs();
    } catch (error) {
      if (it.closed.aborted) throw error;
      // Without an answer the session does not count as lost. If the token lacks rights, there is no need to retry
      // soon.
      deps.emit({ event: 'renewal-failed', detail: { fault: reasonOf(error) } });
      return isTransient(error) ? soonMs() : clock.monotonicMs() + pauseMs;
    }
    throw new RunlockError('session-lost', 'the session no longer exists in Consul');
  }
}

/** The local agent's node name, read from a session because that needs no more rights than a run has. */
export async function agentNode(
  effects: { consul: Consul; deps: Deps },
  request: SessionRequest,
): Promise<string> {
  const session = await openShortSession(effects, request);
  await session.close({ signal: request.signal });
  return session.node;
}
