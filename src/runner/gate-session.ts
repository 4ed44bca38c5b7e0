/**
 * The health gate around a run of `exec` (docs/protocol.md, "The gate"): waits for it without a slot, looks again with
 * one, takes the node out of service before the command and puts it back after a good one.
 */
import { FIRST_CONTACT } from '../consul/consul.ts';
import { checkAgent, requireAgent } from '../gate/agent.ts';
import { slotsWithin } from '../gate/decide.ts';
import type { Verdict } from '../gate/decide.ts';
import { enter } from '../gate/enter.ts';
import { untilHealthy } from '../gate/healthy.ts';
import type { Health } from '../gate/healthy.ts';
import { exitAtLast } from '../gate/exit.ts';
import { keepOut } from '../gate/keep-out.ts';
import type { Found } from '../gate/keep-out.ts';
import type { Exit } from '../gate/exit.ts';
import type { NodeAgent, TakenOut } from '../gate/maintenance.ts';
import { findServices, namedOf, withMore } from '../gate/read.ts';
import { gateGroup } from '../gate/peers.ts';
import { confirmOpen, untilClosed, waitOpen } from '../gate/wait.ts';
import type { GateOutcome, GateWaiting } from '../gate/wait.ts';
import type { Gate } from '../gate/scene.ts';
import type { Reason } from '../gate/until-open.ts';
import type { Waiting } from '../platform/deps.ts';
import { groupKeys } from '../lock/keys.ts';
import type { LeftOn, OutMark, Outcome } from '../lock/records.ts';
import { agentNode } from '../consul/session.ts';
import type { ExecDeps, GateChoice, GroupChoice } from './options.ts';
import { emitEnded, emitEntered, emitFound } from './gate-events.ts';

export interface RunGate {
  readonly node: string;
  /** The services that were asked for. */
  readonly services: readonly string[];
  /** Whether the gate ends maintenance that earlier runs left on. It can only at the node's own agent. */
  readonly changes: boolean;
  /**
   * Waits without a slot, for the gate and for whatever `also` names. Returns the verdicts if not all of that is open
   * when patience ends; undefined: it is.
   */
  waitOutside(waiting: OutsideWaiting): Promise<readonly Verdict[] | undefined>;
  /** While the run waits in the queue: resolves when the gate is closed, for more than those it waits for there. */
  untilClosed(signal: AbortSignal): Promise<readonly Verdict[]>;
  /** How many of `most` slots the node may use. */
  slots(most: number): number;
  /**
   * With all slots held: looks again at the gate and whatever `also` names, takes the node out of service, lets it
   * settle. Returns the verdicts if not all of that is open by now.
   */
  goThrough(waiting: Inside): Promise<readonly Verdict[] | undefined>;
  /** For a run that started nothing: restores the state before it. Never throws. */
  backOut(): Promise<void>;
  /** Called after a command that succeeded; undefined: no health check was asked for. */
  health(signal: AbortSignal): Promise<Health | undefined>;
  /**
   * Puts the node back in service after a good run, or after a run that was told to stop and keeps no slot because of
   * that. Never throws.
   */
  leave(): Promise<void>;
  /**
   * Called at the end of every other run: reports that maintenance stays on, and returns which; undefined: none stays.
   */
  stay(outcome: Outcome): LeftOn | undefined;
}

type OutsideWaiting = Waiting & Pick<GateWaiting, 'also' | 'onLook'>;
type Inside = Pick<Waiting, 'signal' | 'patience'> & Pick<GateWaiting, 'also'>;

export interface GateRequest {
  readonly prefix: string;
  readonly groups: readonly Pick<GroupChoice, 'group' | 'slots'>[];
  readonly run: string;
  /** The name that the caller gave the node; undefined: the name that its agent has. */
  readonly node: string | undefined;
  readonly dryRun: boolean;
  readonly gate: GateChoice;
}

const SESSION_TTL_MS = 30_000;

/**
 * Finds out which node and which services the gate is about. Takes nothing.
 * @throws RunlockError `usage`, `config`, `forbidden`: reports early, before anything is taken, what would fail later.
 */
export async function openRunGate(
  deps: ExecDeps,
  request: GateRequest,
  signal: AbortSignal,
): Promise<RunGate> {
  const { consul } = deps;
  const { gate: choice } = request;
  const asked = { name: 'runlock gate', ttlMs: SESSION_TTL_MS, signal, ...FIRST_CONTACT };
  const local = await agentNode({ consul, deps }, asked);
  const node = request.node ?? local;
  const agent = await findAgent(deps, { choice, node, local }, signal);
  const { maxOffline, minHealthy, allowUnknown = false } = choice;
  const wanted = {
    services: choice.services,
    node,
    local: node === local,
    allowUnknown,
    whole: choice.maintenance === 'node',
    agent: agent?.consul,
  };
  const { services, counted, offered } = await findServices(consul, wanted, signal);
  const gate: Gate = {
    seenHere: new Set(offered),
    services: counted,
    node,
    maxOffline,
    allowUnknown,
    stableMs: request.dryRun ? 0 : choice.stableMs,
    ...(minHealthy !== undefined && { minHealthy }),
    groups: request.groups.map(({ group, slots }) => gateGroup(groupKeys(request.prefix, group), slots)),
  };
  return createRunGate(deps, request, { gate, services, agent });
}

/** The node's own agent; undefined: the run changes nothing at an agent. */
async function findAgent(
  deps: ExecDeps,
  { choice, node, local }: { choice: GateChoice; node: string; local: string },
  signal: AbortSignal,
): Promise<NodeAgent | undefined> {
  if (choice.agent === undefined) {
    if (choice.maintenance !== undefined) requireAgent(node, local);
    // Also without --maintenance: an earlier run that was not good may have left it on.
    return node === local ? { consul: deps.consul, deps } : undefined;
  }
  const consul = await deps.connectTo(choice.agent);
  await checkAgent(consul, node, signal);
  return { consul, deps };
}

interface Parts {
  /** Covers all services that go offline. */
  readonly gate: Gate;
  /** The services that were asked for. */
  readonly services: readonly string[];
  readonly agent: NodeAgent | undefined;
}

function createRunGate(deps: ExecDeps, request: GateRequest, parts: Parts): RunGate {
  const { consul, clock } = deps;
  const { prefix, run, gate: choice } = request;
  const { agent, services } = parts;
  let { gate } = parts;
  const { node } = gate;
  const emitStays = (why: string) =>
    deps.emit({ event: 'maintenance-left', node, run, detail: { kind: 'stays', prefix, services, why } });
  let verdicts: readonly Verdict[] = [];
  let seenMs: number | undefined;
  let taken: readonly TakenOut[] = [];
  let mark: OutMark | undefined;
  /** Replaced each time the node goes out of service, since a run that goes back to wait may do so again. */
  let over = new AbortController();
  /** Resolves when nothing more is taken out. */
  let keeping: Promise<void> | undefined;
  const goBack = async (own: NodeAgent, how: Exit['how']) => {
    over.abort();
    await keeping;
    const exit = { prefix, node, run, services, mark, how };
    mark = undefined;
    return exitAtLast({ consul, deps, agent: own }, exit);
  };
  // Required at the first look only: a service that disappears later may come back.
  let mustBeOffered = choice.allowUnknown ? [] : namedOf(choice.services);
  const closedIn = (outcome: GateOutcome) => {
    ({ verdicts } = outcome);
    if (outcome.kind === 'closed') return outcome.verdicts;
    ({ seenMs } = outcome);
    return undefined;
  };
  const confirm = async (
    now: Gate,
    waiting: { signal: AbortSignal; trying: AbortSignal; also?: readonly Reason[] },
  ) =>
    closedIn(
      await confirmOpen({ consul, deps }, now, { ...waiting, ...(seenMs !== undefined && { seenMs }) }),
    );
  /** Used while the command runs. Leaves `verdicts` and `seenMs`, which the run itself relies on, unchanged. */
  const lookAgain = async (held: AbortSignal) => {
    const now = await confirmOpen({ consul, deps }, { ...gate, stableMs: 0 }, { signal: held });
    return now.kind === 'closed' ? now.verdicts : undefined;
  };
  const goOut = async (signal: AbortSignal, trying: AbortSignal) => {
    if (!agent || choice.maintenance === undefined) return undefined;
    const look = (held: AbortSignal) => confirm({ ...gate, stableMs: 0 }, { signal: held, trying });
    const groups = request.groups.map(({ group }) => group);
    const out = { prefix, node, services: gate.services, scope: choice.maintenance, run, groups, look };
    const entered = await enter({ consul, deps, agent }, out, signal);
    if (entered.kind !== 'entered') return entered;
    ({ taken, mark } = entered);
    emitEntered(deps, taken, { node, run });
    const again = { ...out, look: lookAgain };
    const onFound = (found: Found) => emitFound(deps, found, { node, run });
    over = new AbortController();
    keeping = keepOut(
      { consul, deps, agent },
      { request: again, taken, shown: entered.shown, onFound },
      over.signal,
    );
    return entered;
  };
  return {
    node,
    services,
    changes: agent !== undefined,
    waitOutside: async (waiting) => {
      const first = { mustBeOffered };
      mustBeOffered = [];
      return closedIn(await waitOpen({ consul, deps }, gate, { ...waiting, ...first }));
    },
    untilClosed: (signal) => untilClosed({ consul, deps }, gate, signal),
    slots: (most) => slotsWithin(most, verdicts),
    goThrough: async ({ signal, patience: trying, also = [] }) => {
      for (;;) {
        const closed = await confirm(gate, { signal, trying, also });
        if (closed || request.dryRun) return closed;
        const entered = await goOut(signal, trying);
        if (entered?.kind === 'closed') return entered.closed;
        if (entered?.kind !== 'more') break;
        const more = { services: gate.services, node, more: entered.services };
        gate = { ...gate, services: await withMore(consul, more, signal) };
        for (const service of entered.services) gate.seenHere.add(service);
        // The added services must also be open for the whole stable time.
        seenMs = undefined;
      }
      // The configuration file may set a settle time for all runs; only those that go out of service need it.
      if (choice.maintenance !== undefined) await clock.sleep(choice.settleMs, { signal });
      return undefined;
    },
    backOut: async () => {
      if (!agent || mark === undefined) return;
      taken = [];
      const ended = await goBack(agent, 'undo');
      if (ended.kind === 'stays') emitStays(ended.why);
    },
    health: async (signal) => {
      if (choice.healthyWithinMs === undefined) return undefined;
      const offered = verdicts
        .filter(({ own, service }) => own !== 'none' && services.includes(service))
        .map(({ service }) => service);
      const { healthyWithinMs: withinMs, stableMs } = choice;
      const onSick = (why: string) => deps.emit({ event: 'waiting-for-health', node, run, withinMs, why });
      return untilHealthy({ consul, clock }, { services, offered, node, withinMs, stableMs, onSick }, signal);
    },
    leave: async () => {
      if (!agent || (mark === undefined && isInService(verdicts))) return;
      const wentOut = mark !== undefined;
      const ended = await goBack(agent, 'good');
      if (ended.kind === 'done') emitEnded(deps, ended, { node, run, prefix, wentOut });
      else emitStays(ended.why);
    },
    stay: (outcome) => {
      over.abort();
      const own = taken.filter((mode) => mode.run !== undefined);
      if (own.length === 0) return undefined;
      emitStays(`its run ended as ${outcome}`);
      return toLeftOn(own);
    },
  };
}

function toLeftOn(modes: readonly TakenOut[]): LeftOn {
  const services = modes.flatMap(({ scope, service }) => (scope === 'service' ? [service] : []));
  const node = modes.some(({ scope }) => scope === 'node');
  return { services: [...new Set(services)].sort(), ...(node && { node }) };
}

/** Neither this run nor an earlier one took anything out of service, so `leave` need not wait for an absent agent. */
function isInService(verdicts: readonly Verdict[]): boolean {
  const own = verdicts.map((verdict) => verdict.own);
  return own.includes('healthy') && !own.includes('offline');
}
