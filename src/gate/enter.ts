/**
 * Takes a node out of service if its gate is open. From the look at the gate until the catalogue shows the
 * maintenance, the node holds the lock of each service. If two nodes enter at once, in any groups or in none, the
 * second therefore sees the first (docs/protocol.md, "The gate").
 */
import { isTransient } from '../consul/consul.ts';
import type { Consul, ServiceEntry } from '../consul/consul.ts';
import { startWaiting } from '../platform/deps.ts';
import type { Deps } from '../platform/deps.ts';
import { RunlockError, isRunlockError, reasonOf } from '../errors.ts';
import { gateKey } from '../lock/keys.ts';
import type { OutMark } from '../lock/records.ts';
import { openShortSession, leaveSession } from '../consul/session.ts';
import type { Session } from '../consul/session.ts';
import { exitAtLast } from './exit.ts';
import { LOCK_TTL_MS, checkLock, lockAll, proveLock, sessionLost } from './lock.ts';
import type { LockedBy } from './lock.ts';
import { endModesAtLast, modesOf, takeOut } from './maintenance.ts';
import type { Mode, NodeAgent, Out, Scope, TakenOut } from './maintenance.ts';
import { confirmMark, covers, dropMark, removeMarks, restoreMark, setMark, standings } from './marks.ts';
import type { MarkSet, Marked } from './marks.ts';
import { untilShown } from './catalog-sync.ts';

export interface EnterRequest<Closed> {
  readonly prefix: string;
  /** The node's name in the catalogue. */
  readonly node: string;
  /** All services that go offline, including those that were not named but go offline with the whole node. */
  readonly services: readonly string[];
  readonly scope: Scope;
  readonly run: string;
  /** The groups in which the run has claims, which keep its mark valid. None: the node is taken out by hand. */
  readonly groups: readonly string[];
  /** A command inside the run asks, so the run itself may have gone out of service before. */
  readonly inside?: boolean;
  /** Looks at the gates of all services with consistent reads. Returns why they are closed; undefined: all are open. */
  readonly look: (signal: AbortSignal) => Promise<Closed | undefined>;
}

export type Entered<Closed> =
  | {
      readonly kind: 'entered';
      readonly taken: readonly TakenOut[];
      readonly mark: OutMark;
      /** The instances that are out of service, as the catalogue shows them. */
      readonly shown: readonly ServiceEntry[];
    }
  /** Nothing was changed. */
  | { readonly kind: 'closed'; readonly closed: Closed }
  /**
   * Nothing was changed: these services were registered meanwhile and would go offline too, but their gates were not
   * checked.
   */
  | { readonly kind: 'more'; readonly services: readonly string[] };

type OnBusy = (by: LockedBy | undefined) => void;

export interface EnterEffects {
  readonly consul: Consul;
  readonly deps: Deps;
  /** The node's own agent. */
  readonly agent: NodeAgent;
}

const RETRY_MS = 300;
/** How long to keep asking the agent to change its maintenance: no longer than the lock is certainly held. */
const CHANGE_MS = LOCK_TTL_MS;
/**
 * How long to retry the first request to the agent: longer than a restart takes, but not long, because a slot is
 * held.
 */
const AWAY_MS = 30_000;

/**
 * The limit for all steps together: longer than any single step may take. It is needed because others wait for the
 * lock, and perhaps for the slot.
 */
const ENTER_MS = 120_000;

/**
 * Looks at the gates once more and takes the node out of service, while no other node enters by these services.
 * @throws the signal's reason when it aborts; what this call set is then undone, or a failure to undo it is logged.
 * RunlockError `unreachable`: the node's own agent does not answer, or everything takes too long; `busy`: others have
 * held the lock for too long.
 */
export async function enter<Closed>(
  effects: EnterEffects,
  request: EnterRequest<Closed>,
  signal: AbortSignal,
): Promise<Entered<Closed>> {
  const { clock } = effects.deps;
  const late = startWaiting(clock, ENTER_MS, signal);
  let busy: LockedBy | undefined;
  const onBusy = (by: LockedBy | undefined) => void (busy = by);
  try {
    for (;;) {
      const session = await openShortSession(effects, {
        name: 'runlock gate',
        ttlMs: LOCK_TTL_MS,
        signal: late.either,
      });
      try {
        return await enterWith(effects, request, { session, onBusy, signal: late.either });
      } catch (error) {
        // The lock was lost and another node may have entered meanwhile, so start again.
        if (late.either.aborted || !isRunlockError(error, 'session-lost')) throw error;
      } finally {
        // The session holds only the locks of the gates, which are released with it.
        await leaveSession(effects, session);
      }
      await clock.sleep(RETRY_MS * (1 + effects.deps.random()), { signal: late.either });
    }
  } catch (error) {
    throw late.isOver(error) ? tooLate(effects, request.node, busy) : error;
  } finally {
    late.end();
  }
}

function tooLate({ consul, agent }: EnterEffects, node: string, busy: LockedBy | undefined): RunlockError {
  const limit = `${ENTER_MS / 1000}s`;
  if (busy) {
    const who = busy.run === undefined ? 'others' : `run ${busy.run}`;
    return new RunlockError(
      'busy',
      `${node} did not go out of service: ${who} held the lock of the gate, ${busy.key}, for ${limit}; check that run, or try again`,
    );
  }
  const where = agent.consul.address === consul.address ? '' : ` and the agent at ${agent.consul.address}`;
  return new RunlockError(
    'unreachable',
    `${node} did not go out of service within ${limit}: Consul at ${consul.address}${where} did not answer in time`,
  );
}

async function enterWith<Closed>(
  effects: EnterEffects,
  request: EnterRequest<Closed>,
  { session, onBusy, signal }: { session: Session; onBusy: OnBusy; signal: AbortSignal },
): Promise<Entered<Closed>> {
  const { services, scope, run, groups, inside = false } = request;
  const keys = [...new Set(services.map((service) => gateKey(request.prefix, service)))].sort();
  const either = AbortSignal.any([signal, session.lost]);
  await lockAll(effects, { keys, session: session.id, run, onBusy }, either);
  const mark: OutMark = { ...(scope === 'node' ? { services: [], node: true } : { services }), groups };
  // By hand, no claim limits the life of the mark. Tie it to the session, so that it goes if this process is killed.
  const isByHand = groups.length === 0;
  let marks: MarkSet | undefined;
  // Whether a change was sent without an answer, so that it may still reach the agent later.
  const change = { isUnderWay: false };
  let before: readonly Mode[] | undefined;
  try {
    const entering = isByHand ? session.id : undefined;
    marks = await setMark(effects, request, { mark, inside, session: entering, signal: either });
    before = await modesOf(effects.agent, 'all', { signal: either, retryForMs: AWAY_MS });
    await dropDead(effects, request, { others: marks.others, before, signal: either });
    const more = scope === 'node' ? await unlockedOf(effects.agent, services, either) : [];
    const closed = more.length === 0 ? await request.look(either) : undefined;
    if (more.length > 0 || closed !== undefined) {
      await undo(effects, request, { mark, marks, before: undefined, isUnderWay: false });
      return closed === undefined ? { kind: 'more', services: more } : { kind: 'closed', closed };
    }
    const proof = await proveLock(effects, { keys, session: session.id }, either);
    const late = AbortSignal.timeout(proof.leftMs());
    const check = () => {
      proof.check();
      change.isUnderWay = true;
    };
    const out = { services, scope, run, check };
    const taken = await takeOutInTime(effects.agent, out, { node: request.node, late, change });
    change.isUnderWay = false;
    const { consul, deps } = effects;
    const shown = await untilShown({ consul, clock: deps.clock }, { ...request, taken }, either);
    await checkLock(effects, { keys, session: session.id }, either);
    if (isByHand && !taken.some(({ run: whose }) => whose !== undefined))
      await undo(effects, request, { mark, marks, before: undefined, isUnderWay: false });
    else if (isByHand) await confirmMark(effects, request, { mark, session: session.id, signal: either });
    return { kind: 'entered', taken, mark, shown };
  } catch (error) {
    const isUnderWay = change.isUnderWay && isTransient(error);
    if (marks) await undo(effects, request, { mark, marks, before, isUnderWay });
    throw error;
  }
}

/** The services that the node offers besides these. */
async function unlockedOf(
  { consul }: NodeAgent,
  services: readonly string[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const offered = await consul.agentServices({ signal, retryForMs: AWAY_MS });
  return [...new Set(offered.map(({ service }) => service))].filter((name) => !services.includes(name));
}

/**
 * Removes marks of dead runs whose maintenance has been ended since: the maintenance that this run sets now is not
 * theirs. This is safe because the node holds the locks of these services, so no other run is going out by them now.
 */
async function dropDead(
  effects: EnterEffects,
  { prefix, node, run, services }: EnterRequest<unknown>,
  { others, before, signal }: { others: readonly Marked[]; before: readonly Mode[]; signal: AbortSignal },
): Promise<void> {
  const isOn = (one: Marked) => before.some((mode) => mode.run !== undefined && covers(one, mode));
  const isIdle = (one: Marked) => {
    if (!one.mark || isOn(one)) return false;
    // These locks do not cover the whole node, which somebody may be taking out of service by hand right now.
    if (one.mark.node) return one.mark.groups.length > 0;
    return one.mark.services.some((service) => services.includes(service));
  };
  const idle = others.filter(isIdle);
  if (idle.length === 0) return;
  const known = await standings(effects, { prefix, node, run }, { marks: idle, signal });
  const over = idle.filter((one) => {
    const standing = known.get(one.run);
    return standing?.kind !== 'unknown' && !(standing?.kind === 'claimed' && standing.locked);
  });
  await removeMarks(effects, { prefix, node, over }, signal);
}

/**
 * @throws RunlockError `unreachable`: the agent did not make the change in time, but may still make it.
 * `session-lost`: the agent was not asked in time, for example because this process was stopped.
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

interface Undo {
  readonly mark: OutMark;
  readonly marks: MarkSet;
  /** What was in maintenance before; undefined: this call changed nothing. */
  readonly before: readonly Mode[] | undefined;
  /** A change may still reach the agent after this undo. */
  readonly isUnderWay: boolean;
}

/** Ends the maintenance that this call set, and what other runs have left on because of this run's mark. */
async function undo(
  effects: EnterEffects,
  { prefix, services, scope, run, node }: EnterRequest<unknown>,
  { mark, marks, before, isUnderWay }: Undo,
): Promise<void> {
  const { agent, deps } = effects;
  const marker = { prefix, node, run };
  const there = (mode: Mode) =>
    before?.some(({ scope, serviceId }) => scope === mode.scope && serviceId === mode.serviceId);
  const out = { prefix, services: scope === 'node' ? [] : services };
  const signal = AbortSignal.timeout(CHANGE_MS);
  try {
    if (marks.before) {
      // The run itself went out of service before this call, so keep that and undo only what this call set.
      await restoreMark(effects, marker, { mark: marks.before, signal });
      const now = before ? await modesOf(agent, services, { signal, retryForMs: CHANGE_MS }) : [];
      const { stays, why } = await endModesAtLast(
        agent,
        now.filter((mode) => mode.run === run && !there(mode)),
      );
      if (stays.length > 0) throw new Error(why);
    } else if (before || (await dropMark(effects, marker, signal))) {
      const only = (mode: Mode) => mode.run !== run || !there(mode);
      const left = await exitAtLast(effects, { ...marker, services, only, mark, how: 'undo' });
      if (left.kind === 'stays') throw new Error(left.why);
    }
    if (isUnderWay)
      deps.emit({ event: 'maintenance-left', node, run, detail: { kind: 'may-go-in', ...out } });
  } catch (error) {
    const detail = { kind: 'may-stay', ...out, why: reasonOf(error) } as const;
    deps.emit({ event: 'maintenance-left', node, run, detail });
  }
}
