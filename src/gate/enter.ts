/**
 * Going out of service behind an open gate. Between the look at the gate and the moment at which the catalogue shows the
 * maintenance, the node holds a lock of each service: so of two that enter at once, in whatever group or in none, the
 * second sees the first (docs/protocol.md, "The gate").
 */
import { isTransient } from '../consul.ts';
import type { Consul } from '../consul.ts';
import type { Deps } from '../deps.ts';
import { RunlockError, isRunlockError, reasonOf } from '../errors.ts';
import { leaveHint } from './describe.ts';
import { gateKey } from '../lock/layout.ts';
import { openSession } from '../lock/session.ts';
import type { Session } from '../lock/session.ts';
import { holdsGates, lockGates, send } from '../lock/transactions.ts';
import { endModesAtLast, modesOf, takeOut } from './maintenance.ts';
import type { Mode, NodeAgent, Out, Scope, TakenOut } from './maintenance.ts';

export interface EnterRequest<Closed> {
  readonly prefix: string;
  /** The node, as the catalogue names it. */
  readonly node: string;
  readonly services: readonly string[];
  readonly scope: Scope;
  readonly run: string;
  /** Looks at the gates of all services, consistently: why they are closed, or undefined where all are open. */
  readonly look: (signal: AbortSignal) => Promise<Closed | undefined>;
}

export type Entered<Closed> =
  | { readonly kind: 'entered'; readonly taken: readonly TakenOut[] }
  /** Nothing was changed. */
  | { readonly kind: 'closed'; readonly closed: Closed };

interface Effects {
  readonly consul: Consul;
  readonly deps: Deps;
  /** The node's own. */
  readonly agent: NodeAgent;
}

/** Short: an entry takes moments, and one that was killed should not keep the others long. */
const TTL_MS = 10_000;
const RETRY_MS = 300;
/** How long the agent is asked for its own maintenance, and to change it: no longer than the lock is held for certain. */
const CHANGE_MS = TTL_MS;
/** How long Consul is asked again whether the lock is held. */
const CHECK_MS = 10_000;
/** How long the agent is asked at first: longer than a restart takes. A slot is held meanwhile. */
const AWAY_MS = 30_000;
/** An agent tells the servers at once, but waits when it can't reach them. */
const SHOWN_MS = 30_000;

/**
 * Looks at the gates once more and takes the node out of service, alone among all who enter by these services.
 * @throws the signal's reason when it aborts; what this call set is off again then, or it is said that it is not.
 * RunlockError `unreachable` where the node's own agent is away.
 */
export async function enter<Closed>(
  effects: Effects,
  request: EnterRequest<Closed>,
  signal: AbortSignal,
): Promise<Entered<Closed>> {
  for (;;) {
    const session = await openSession(effects, { name: 'runlock gate', ttlMs: TTL_MS, signal });
    try {
      return await enterWith(effects, request, { session, signal });
    } catch (error) {
      // Somebody else may have entered meanwhile.
      if (signal.aborted || !isRunlockError(error, 'session-lost')) throw error;
    } finally {
      await leaveLock(effects, session);
    }
    await effects.deps.clock.sleep(RETRY_MS * (1 + effects.deps.random()), { signal });
  }
}

async function enterWith<Closed>(
  effects: Effects,
  request: EnterRequest<Closed>,
  { session, signal }: { session: Session; signal: AbortSignal },
): Promise<Entered<Closed>> {
  const { agent } = effects;
  const { services, scope, run } = request;
  const keys = [...new Set(services.map((service) => gateKey(request.prefix, service)))].sort();
  const either = AbortSignal.any([signal, session.lost]);
  await lockAll(effects, { keys, session: session.id, run }, either);
  const before = await modesOf(agent, services, { signal: either, retryForMs: AWAY_MS });
  const closed = await request.look(either);
  if (closed !== undefined) return { kind: 'closed', closed };
  // Asked for and not answered: it can reach the agent later.
  const change = { isUnderWay: false };
  try {
    const proof = await proveLock(effects, { keys, session: session.id }, either);
    const late = AbortSignal.timeout(proof.leftMs());
    const check = () => {
      proof.check();
      change.isUnderWay = true;
    };
    const out = { services, scope, run, check };
    const taken = await takeOutInTime(agent, out, { node: request.node, late, change });
    change.isUnderWay = false;
    await untilShown(effects, { ...request, taken }, either);
    await checkLock(effects, { keys, session: session.id }, either);
    return { kind: 'entered', taken };
  } catch (error) {
    await undo(effects, request, { before, isUnderWay: change.isUnderWay && isTransient(error) });
    throw error;
  }
}

/**
 * @throws RunlockError `unreachable`: the agent did not do it in time, and may do it yet. `session-lost`: it was not even
 * asked in time; a process that was stopped hears that first.
 */
async function takeOutInTime(
  agent: NodeAgent,
  out: Out,
  { node, late, change }: { node: string; late: AbortSignal; change: { readonly isUnderWay: boolean } },
): Promise<readonly TakenOut[]> {
  try {
    return await takeOut(agent, out, { signal: late, retryForMs: CHANGE_MS / 2 });
  } catch (error) {
    if (error !== late.reason) throw error;
    if (!change.isUnderWay) throw sessionLost();
    const message = `the agent at ${agent.consul.address} did not put ${node} into maintenance in time; is it running?`;
    throw new RunlockError('unreachable', message, { cause: error });
  }
}

interface Lock {
  readonly keys: readonly string[];
  readonly session: string;
}

const ruleFor = (keys: readonly string[]) =>
  keys.map((key) => `key "${key}" { policy = "write" }`).join(', ');

/** All of them, or none: so nobody waits for one while he holds another. */
async function lockAll(
  { consul, deps }: Effects,
  { keys, session, run }: Lock & { run: string },
  signal: AbortSignal,
): Promise<void> {
  // A transaction of nothing is none that Consul answers: a node that offers no service takes nobody's gate.
  if (keys.length === 0) return;
  for (;;) {
    const result = await send(consul, lockGates(keys, session, run), { signal, rule: ruleFor(keys) }).catch(
      (error: unknown) => {
        // To lock twice with one session does no harm.
        if (isTransient(error)) return undefined;
        throw error;
      },
    );
    if (result?.kind === 'done') return;
    if (result?.obstacle === 'session') throw sessionLost();
    if (result) await untilFree(consul, result.key, signal);
    else await deps.clock.sleep(RETRY_MS, { signal });
  }
}

async function untilFree(consul: Consul, key: string, signal: AbortSignal): Promise<void> {
  let index: number | undefined;
  for (;;) {
    const seen = await consul.get(key, { signal, index, rule: ruleFor([key]) });
    if (seen.entry?.session === undefined) return;
    index = seen.index < (index ?? 0) ? undefined : seen.index;
  }
}

interface Proof {
  /** For so many whole milliseconds the lock is held for certain: a change must have been made by then. */
  readonly leftMs: () => number;
  /** Throws when that is over. */
  readonly check: () => void;
}

/**
 * The lock is held now, but not for ever: a process that was stopped goes on where it was, with a look that is no longer
 * true, when somebody else may have it.
 */
async function proveLock(effects: Effects, lock: Lock, signal: AbortSignal): Promise<Proof> {
  const { clock } = effects.deps;
  const provedMs = await checkLock(effects, lock, signal);
  const leftMs = () => Math.max(0, Math.floor(provedMs + TTL_MS - clock.monotonicMs()));
  const check = () => {
    signal.throwIfAborted();
    if (leftMs() === 0) throw sessionLost();
  };
  return { leftMs, check };
}

/**
 * A process that was stopped for long may have lost its lock before it took the node out.
 * @returns when it was still held, in monotonic milliseconds.
 */
async function checkLock(
  { consul, deps }: Effects,
  { keys, session }: Lock,
  signal: AbortSignal,
): Promise<number> {
  const startedMs = deps.clock.monotonicMs();
  for (;;) {
    const sentMs = deps.clock.monotonicMs();
    if (keys.length === 0) return sentMs;
    try {
      const held = await send(consul, holdsGates(keys, session), { signal, rule: ruleFor(keys) });
      if (held.kind === 'refused') throw sessionLost();
      return sentMs;
    } catch (error) {
      // It changes nothing, so it may be asked again.
      if (!isTransient(error) || deps.clock.monotonicMs() - startedMs >= CHECK_MS) throw error;
    }
    await deps.clock.sleep(RETRY_MS, { signal });
  }
}

const sessionLost = () => new RunlockError('session-lost', 'the lock of the gate was lost');

/** Resolves when the catalogue shows each of these maintenances: what everybody else decides by. */
async function untilShown(
  { consul }: Effects,
  { node, services, taken }: { node: string; services: readonly string[]; taken: readonly TakenOut[] },
  signal: AbortSignal,
): Promise<void> {
  const late = AbortSignal.timeout(SHOWN_MS);
  const either = AbortSignal.any([signal, late]);
  try {
    for (const service of services) {
      const own = taken.filter((mode) => mode.scope === 'node' || mode.service === service);
      if (own.length > 0) await untilServiceShown(consul, { node, service, taken: own }, either);
    }
  } catch (error) {
    if (signal.aborted || !late.aborted) throw error;
    const message = `the maintenance of ${node} did not reach the catalogue within ${SHOWN_MS / 1000} s; can its agent reach Consul's servers?`;
    throw new RunlockError('unreachable', message, { cause: error });
  }
}

async function untilServiceShown(
  consul: Consul,
  { node, service, taken }: { node: string; service: string; taken: readonly TakenOut[] },
  signal: AbortSignal,
): Promise<void> {
  let index: number | undefined;
  for (;;) {
    const seen = await consul.health(service, {
      signal,
      index,
      rule: `service "${service}" { policy = "read" }`,
    });
    const own = seen.entries.filter((entry) => entry.node === node);
    const shown = own.every((entry) =>
      taken.every(
        (mode) =>
          (mode.scope === 'service' && mode.serviceId !== entry.serviceId) ||
          entry.checks.some((check) => check.id === checkId(mode)),
      ),
    );
    if (shown) return;
    index = seen.index < (index ?? 0) ? undefined : seen.index;
  }
}

const checkId = ({ scope, serviceId }: Mode) =>
  scope === 'node' ? '_node_maintenance' : `_service_maintenance:${serviceId}`;

interface Undo {
  /** What was in maintenance before. */
  readonly before: readonly Mode[];
  /** A change may still reach the agent, after what is undone here. */
  readonly isUnderWay: boolean;
}

/** What this run set and did not find there goes again. */
async function undo(
  { agent, deps }: Effects,
  { prefix, services, run, node }: EnterRequest<unknown>,
  { before, isUnderWay }: Undo,
): Promise<void> {
  const there = (mode: Mode) =>
    before.some(({ scope, serviceId }) => scope === mode.scope && serviceId === mode.serviceId);
  const warn = (what: string) => {
    const message = `${node} may ${what}; '${leaveHint(prefix, services)}' on ${node} ends it`;
    deps.log('warning', message, { event: 'maintenance-left', node, run });
  };
  try {
    const now = await modesOf(agent, services, {
      signal: AbortSignal.timeout(CHANGE_MS),
      retryForMs: CHANGE_MS,
    });
    const own = now.filter((mode) => mode.run === run && !there(mode));
    const { stays, why } = await endModesAtLast(agent, own);
    if (stays.length > 0) throw new Error(why);
    if (isUnderWay) warn('still go into maintenance (its agent did not answer when it was asked for it)');
  } catch (error) {
    warn(`stay in maintenance (${reasonOf(error)})`);
  }
}

/** Nothing is held by it but the locks of the gates, which go with it; without an answer it ends by itself. */
async function leaveLock({ deps }: Effects, session: Session): Promise<void> {
  const options = { signal: AbortSignal.timeout(5_000) };
  await session.close(options).catch((error: unknown) => {
    deps.log('debug', `the session was not destroyed: ${reasonOf(error)}`, { event: 'session-left' });
  });
}
