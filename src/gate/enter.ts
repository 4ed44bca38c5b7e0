/**
 * Going out of service behind an open gate. Between the look at the gate and the moment at which the catalogue shows the
 * maintenance, the node holds a lock of each service: so of two that enter at once, in whatever group or in none, the
 * second sees the first (docs/protocol.md, "The gate").
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
  /** The node, as the catalogue names it. */
  readonly node: string;
  /** All that go offline, also those that only the scope takes along. */
  readonly services: readonly string[];
  readonly scope: Scope;
  readonly run: string;
  /** The groups in which the run has claims, by which it needs its maintenance; none: it is entered by hand. */
  readonly groups: readonly string[];
  /** By a command inside the run, which may have gone out by itself before. */
  readonly inside?: boolean;
  /** Looks at the gates of all services, consistently: why they are closed, or undefined where all are open. */
  readonly look: (signal: AbortSignal) => Promise<Closed | undefined>;
}

export type Entered<Closed> =
  | {
      readonly kind: 'entered';
      readonly taken: readonly TakenOut[];
      readonly mark: OutMark;
      /** The instances that are out, as the catalogue has them. */
      readonly shown: readonly ServiceEntry[];
    }
  /** Nothing was changed. */
  | { readonly kind: 'closed'; readonly closed: Closed }
  /** Nothing was changed: these were registered meanwhile, and would go offline with the node. Nobody has looked at their gates. */
  | { readonly kind: 'more'; readonly services: readonly string[] };

type OnBusy = (by: LockedBy | undefined) => void;

export interface EnterEffects {
  readonly consul: Consul;
  readonly deps: Deps;
  /** The node's own. */
  readonly agent: NodeAgent;
}

const RETRY_MS = 300;
/** How long the agent is asked for its own maintenance, and to change it: no longer than the lock is held for certain. */
const CHANGE_MS = LOCK_TTL_MS;
/** How long the agent is asked at first: longer than a restart takes. A slot is held meanwhile. */
const AWAY_MS = 30_000;

/**
 * All of it: longer than each of its steps may take by itself. Others wait for the lock meanwhile, and for the slot of a run.
 */
const ENTER_MS = 120_000;

/**
 * Looks at the gates once more and takes the node out of service, alone among all who enter by these services.
 * @throws the signal's reason when it aborts; what this call set is off again then, or it is said that it is not.
 * RunlockError `unreachable` where the node's own agent is away, or all of it takes too long; `busy` where others have kept
 * the lock for so long.
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
        // Somebody else may have entered meanwhile.
        if (late.either.aborted || !isRunlockError(error, 'session-lost')) throw error;
      } finally {
        // Nothing is held by it but the locks of the gates, which go with it.
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
  // No claim stands behind its mark: what was killed on the way must not be needed for ever.
  const isByHand = groups.length === 0;
  let marks: MarkSet | undefined;
  // Asked for and not answered: it can reach the agent later.
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

/** What the node offers besides. */
async function unlockedOf(
  { consul }: NodeAgent,
  services: readonly string[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const offered = await consul.agentServices({ signal, retryForMs: AWAY_MS });
  return [...new Set(offered.map(({ service }) => service))].filter((name) => !services.includes(name));
}

/**
 * Marks of runs that no longer run, of a maintenance that somebody has ended since: it is not theirs that is set now. Who
 * goes out by these services has their locks, and nobody else does.
 */
async function dropDead(
  effects: EnterEffects,
  { prefix, node, run, services }: EnterRequest<unknown>,
  { others, before, signal }: { others: readonly Marked[]; before: readonly Mode[]; signal: AbortSignal },
): Promise<void> {
  const isOn = (one: Marked) => before.some((mode) => mode.run !== undefined && covers(one, mode));
  const isIdle = (one: Marked) => {
    if (!one.mark || isOn(one)) return false;
    // The locks are the services': somebody may be about to take the whole node out by hand.
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

interface Undo {
  readonly mark: OutMark;
  readonly marks: MarkSet;
  /** What was in maintenance before; undefined: nothing was changed. */
  readonly before: readonly Mode[] | undefined;
  /** A change may still reach the agent, after what is undone here. */
  readonly isUnderWay: boolean;
}

/** What this run set and did not find there goes again, and what others have left on for it since its mark was set. */
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
      // The run itself is out, by more than this.
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
