/**
 * The agent's key, `.agents/<node>`, locked by its session: it says that the agent is there, and that it is the only one
 * of this node. Whoever holds it serves; whoever does not, does not.
 */
import type { Consul, Entry } from '../consul/consul.ts';
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { leaveSession, openShortSession } from '../consul/session.ts';
import type { Session } from '../consul/session.ts';
import { send } from '../consul/txn.ts';
import { lookPast } from '../consul/watch.ts';
import { RunlockError, isRunlockError, reasonOf } from '../errors.ts';
import type { AgentDocument } from '../jobs/documents.ts';
import { agentKey } from '../jobs/keys.ts';
import { isSameBoot } from '../platform/deps.ts';
import type { Deps, Host } from '../platform/deps.ts';
import { clockTime } from '../text/age.ts';

export interface Presence {
  readonly node: string;
  /** Its id. What is locked by it goes with this agent. */
  readonly session: string;
  /** Aborts when the key is no longer this agent's: its session ended, or somebody deleted or took the key. */
  readonly lost: AbortSignal;
  /** Whether Consul did not answer for longer than a session lives: then all agents come back at the same time. */
  readonly wasAway: () => boolean;
  /** Publishes the document, unless it is published already. */
  publish(document: AgentDocument, options: { signal: AbortSignal }): Promise<void>;
  /** Gives the key back. Never throws. */
  leave(): Promise<void>;
}

export interface PresenceRequest {
  readonly prefix: string;
  /** Undefined: the name of the Consul agent's node. */
  readonly node?: string | undefined;
  readonly ttlMs: number;
  /** The document of the node with this name. */
  readonly document: (node: string) => AgentDocument;
  /** Throws if this agent must not be that of the node with this name: then it ends. */
  readonly admit: (node: string) => void;
}

interface Effects {
  readonly consul: Consul;
  readonly deps: Deps;
}

export interface Taking {
  readonly signal: AbortSignal;
  /** Hears why the key can't be had now. */
  readonly failing: (fault: string) => void;
  /** Hears of each answer of Consul while the key is held, at least one in a minute. */
  readonly answered: () => void;
}

const RETRY: Growth = { shortestMs: 500, longestMs: 30_000 };

/**
 * Takes the key, and tries until it is taken: a Consul that is away, or a token that is refused, ends no agent.
 * @throws RunlockError `busy`: another agent of this node is running. What `admit` throws. The signal's reason.
 */
export async function takePresence(
  effects: Effects,
  request: PresenceRequest,
  { signal, failing, answered }: Taking,
): Promise<Presence> {
  const { clock, random } = effects.deps;
  const denials: unknown[] = [];
  const admit = (node: string) => {
    try {
      request.admit(node);
    } catch (error) {
      denials.push(error);
      throw error;
    }
  };
  for (let failures = 0; ; failures += 1) {
    try {
      return await takeOnce(effects, { ...request, admit }, { signal, answered });
    } catch (error) {
      if (signal.aborted || denials.includes(error) || isRunlockError(error, 'busy', 'bug')) throw error;
      failing(reasonOf(error));
      await clock.sleep(growingMs(failures, RETRY, random), { signal });
    }
  }
}

/** A try that gets no answer says so; the next one comes soon. */
const LIMITS = { retryForMs: 0 };

async function takeOnce(
  effects: Effects,
  request: PresenceRequest,
  { signal, answered }: Omit<Taking, 'failing'>,
): Promise<Presence> {
  const { prefix, ttlMs } = request;
  const session = await openShortSession(effects, { name: 'runlock agent', ttlMs, signal, ...LIMITS });
  try {
    const node = request.node ?? session.node;
    request.admit(node);
    const place: Place = {
      ...effects,
      session,
      key: agentKey(prefix, node),
      rule: `key_prefix "${prefix}/.agents/${node}" { policy = "write" }`,
    };
    const document = request.document(node);
    await lock(place, document, signal);
    answered();
    return watched(place, document, { ttlMs, answered });
  } catch (error) {
    await leaveSession(effects, session);
    throw error;
  }
}

interface Place extends Effects {
  readonly session: Session;
  readonly key: string;
  readonly rule: string;
}

/** @throws RunlockError `busy` */
async function lock(place: Place, document: AgentDocument, signal: AbortSignal): Promise<void> {
  const { consul, deps, key, rule } = place;
  for (;;) {
    const result = await lockOnce(place, document, signal);
    if (result.kind === 'done') return;
    if (result.obstacle === 'session')
      throw new RunlockError('session-lost', 'the new session is gone already');
    const { entry } = await consul.get(key, { signal, rule, ...LIMITS });
    // It was given back meanwhile.
    if (entry?.session === undefined) continue;
    const other = readOther(entry);
    if (!(await isGone(deps.host, other))) throw runningElsewhere(document.node, other);
    // Its session would keep this node without an agent for its whole TTL (ADR 6).
    await consul.destroySession(entry.session, { signal, ...LIMITS });
  }
}

const lockOnce = ({ consul, session, key, rule }: Place, document: AgentDocument, signal: AbortSignal) =>
  send(
    consul,
    [
      {
        operation: { verb: 'lock', key, value: encode(document), session: session.id },
        means: 'other' as const,
      },
    ],
    { signal, rule },
  );

const encode = (document: AgentDocument) => JSON.stringify({ v: 1, ...document });

/** What is needed of another agent's document, which may be of another version of runlock. */
type Other = Partial<
  Pick<AgentDocument, 'host' | 'machine' | 'pid' | 'startTime' | 'bootId' | 'since' | 'node'>
>;

function readOther({ value }: Entry): Other {
  try {
    const read: unknown = JSON.parse(value);
    return typeof read === 'object' && read !== null ? read : {};
  } catch {
    return {};
  }
}

/** Whether an agent of this host provably runs no more: it was killed, or the host has booted since. Or it is this process. */
export async function isGone(host: Host, other: Other): Promise<boolean> {
  const { bootId, pid, startTime } = other;
  if (bootId === undefined || pid === undefined || startTime === undefined) return false;
  const self = host.self();
  if (bootId === self.bootId) {
    if (pid === self.pid && startTime === self.startTime) return true;
    return host.startTime(pid) !== startTime && !host.hidden(pid);
  }
  // In another namespace of the same boot its pid means nothing here.
  if (isSameBoot(bootId, self.bootId)) return false;
  const here = await host.place();
  return here.machine !== undefined && here.machine === other.machine;
}

function runningElsewhere(node: string, { host, pid, since }: Other): RunlockError {
  const where = `${host === undefined ? '' : ` on ${host}`}${pid === undefined ? '' : ` (pid ${pid})`}`;
  const when = since === undefined ? '' : ` since ${clockTime(since)}`;
  return new RunlockError(
    'busy',
    `an agent for node ${node} is already running${where}${when}; stop that one first, or give this one another name with --node`,
  );
}

/** Follows the key, because a deleted key, or a restored snapshot, ends no session. */
function watched(
  place: Place,
  first: AgentDocument,
  { ttlMs, answered }: { readonly ttlMs: number; readonly answered: () => void },
): Presence {
  const { deps, session, key } = place;
  const silence = watchSilence(deps.clock, ttlMs);
  const lost = new AbortController();
  const closed = new AbortController();
  const end = () => lost.abort(session.lost.reason);
  session.lost.addEventListener('abort', end, { once: true });
  let published = JSON.stringify(first);
  const hear = () => {
    silence.answered();
    answered();
  };
  void follow(place, AbortSignal.any([session.lost, closed.signal]), hear).then(
    (why) => lost.abort(new RunlockError('session-lost', `${key} ${why}`)),
    () => undefined,
  );
  return {
    node: first.node,
    session: session.id,
    lost: lost.signal,
    wasAway: () => silence.wasAway(),
    publish: async (document, { signal }) => {
      const next = JSON.stringify(document);
      if (next === published) return;
      const result = await lockOnce(place, document, signal);
      if (result.kind === 'done') published = next;
      else lost.abort(new RunlockError('session-lost', `${key} is no longer this agent's`));
    },
    leave: async () => {
      session.lost.removeEventListener('abort', end);
      closed.abort();
      await leaveSession({ deps }, session);
    },
  };
}

/** Returns when the key is somebody else's, or gone. Nothing is proven by a Consul that does not answer. */
async function follow(
  { consul, deps, session, key, rule }: Place,
  signal: AbortSignal,
  answered: () => void,
): Promise<string> {
  const { clock, random } = deps;
  for (let index = 0, failures = 0; ;) {
    try {
      const seen = await lookPast((past) => consul.get(key, { ...past, signal, rule }), index);
      ({ index } = seen);
      failures = 0;
      answered();
      if (seen.entry === undefined) return 'was deleted';
      if (seen.entry.session !== session.id) return 'was taken by another agent';
    } catch (error) {
      if (signal.aborted) throw error;
      // Refused, for now: the session goes on, and so does the agent.
      await clock.sleep(growingMs(failures, RETRY, random), { signal });
      failures += 1;
    }
  }
}

/** Notices a gap between answers that is longer than `mostMs`, until as long after its end. */
export function watchSilence(clock: Pick<Deps['clock'], 'monotonicMs'>, mostMs: number) {
  let lastMs = clock.monotonicMs();
  let endedMs = -Infinity;
  return {
    answered: () => {
      const now = clock.monotonicMs();
      if (now - lastMs > mostMs) endedMs = now;
      lastMs = now;
    },
    wasAway: () => clock.monotonicMs() - lastMs > mostMs || clock.monotonicMs() - endedMs < mostMs,
  };
}
