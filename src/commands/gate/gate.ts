/** `runlock gate`: checks the health gate, takes a node out of service through it, and puts the node back. */
import { FIRST_CONTACT } from '../../consul/consul.ts';
import type { Consul } from '../../consul/consul.ts';
import type { Deps } from '../../platform/deps.ts';
import { checkAgent, requireAgent } from '../../gate/agent.ts';
import type { Bounds, Verdict } from '../../gate/decide.ts';
import { enter } from '../../gate/enter.ts';
import { leaveService } from '../../gate/exit.ts';
import type { Kept } from '../../gate/exit.ts';
import type { Mode, NodeAgent, Scope, TakenOut } from '../../gate/maintenance.ts';
import { findServices, namedOf, withMore } from '../../gate/read.ts';
import { confirmOpen, waitOpen } from '../../gate/wait.ts';
import type { Gate } from '../../gate/scene.ts';
import type { GateWaiting } from '../../gate/wait.ts';
import { agentNode } from '../../consul/session.ts';
import { tellLooks } from '../../gate/progress.ts';
import { startWaiting } from '../../platform/deps.ts';

export interface GateOptions {
  readonly action: 'check' | 'enter' | 'leave';
  readonly prefix: string;
  /** Names, and `auto`. */
  readonly services: readonly string[];
  /** Default: the agent's own node. */
  readonly node?: string;
  readonly bounds: Bounds;
  /** Milliseconds. */
  readonly stableMs: number;
  readonly wait: number | 'forever';
  /** What goes into maintenance. */
  readonly scope: Scope;
}

export interface GateDeps extends Deps {
  readonly consul: Consul;
  /** The node's own agent, if that is not the local one; undefined: none was named. */
  readonly agent?: Consul;
  /** The id to mark maintenance with. */
  readonly run: string;
  /** The node, and the groups with claims, of the run that this command is part of. Undefined: a person runs it. */
  readonly inside?: { readonly node: string; readonly groups: readonly string[] };
}

export type GateResult =
  | { readonly kind: 'open' | 'closed'; readonly node: string; readonly verdicts: readonly Verdict[] }
  | {
      readonly kind: 'entered';
      readonly node: string;
      readonly verdicts: readonly Verdict[];
      readonly taken: readonly TakenOut[];
    }
  /** `stays`: maintenance that runlock did not set. `kept`: maintenance that a live run needs. */
  | {
      readonly kind: 'left';
      readonly node: string;
      readonly ended: readonly Mode[];
      readonly stays: readonly Mode[];
      readonly kept: readonly Kept[];
    };

/** The session is made only to learn the agent's node name; it holds nothing. */
const SESSION_TTL_MS = 30_000;

/** @throws RunlockError; the signal's reason when it aborts, after undoing all that this call did. */
export async function gate(deps: GateDeps, options: GateOptions, signal: AbortSignal): Promise<GateResult> {
  const { consul, agent } = deps;
  const changes = options.action !== 'check';
  const asked = { name: 'runlock gate', ttlMs: SESSION_TTL_MS, signal, ...FIRST_CONTACT };
  const needsLocal = options.node === undefined || (changes && !agent);
  const local = needsLocal ? await agentNode({ consul, deps }, asked) : undefined;
  const node = options.node ?? local ?? '';
  if (changes && local !== undefined) requireAgent(node, local);
  if (agent) await checkAgent(agent, node, signal);
  const isLocal = node === local;
  const { bounds, stableMs } = options;
  // A service that no longer exists can still be put back.
  const allowUnknown = bounds.allowUnknown ?? options.action === 'leave';
  const whole = options.scope === 'node' && options.action !== 'leave';
  const wanted = {
    services: options.services,
    node,
    local: isLocal,
    allowUnknown,
    whole,
    agent,
    anyCase: options.action === 'leave',
  };
  const { counted, offered } = await findServices(consul, wanted, signal);
  const own: Own = {
    deps,
    options,
    gate: { ...bounds, services: counted, node, stableMs, seenHere: new Set(offered) },
  };
  switch (options.action) {
    case 'check':
      return check(own, signal);
    case 'enter':
      return goOut(own, signal);
    case 'leave':
      return leave(own, signal);
  }
}

interface Own {
  readonly deps: GateDeps;
  readonly options: GateOptions;
  readonly gate: Gate;
}

async function check(own: Own, signal: AbortSignal): Promise<GateResult> {
  const waiting = startWaiting(own.deps.clock, own.options.wait, signal);
  try {
    const { kind, verdicts } = await lookOn(own, { ...waiting, ...toBeOffered(own) });
    return { kind, node: own.gate.node, verdicts };
  } finally {
    waiting.end();
  }
}

function lookOn({ deps, options, gate: asked }: Own, waiting: GateWaiting) {
  // Without a wait the result on stdout is enough, so do not log looks.
  const onLook = options.wait === 0 ? {} : { onLook: tellLooks(deps, asked.node) };
  return waitOpen({ consul: deps.consul, deps }, asked, { ...waiting, ...onLook });
}

/** Services that must exist at the first look. */
const toBeOffered = ({ options: { services, bounds } }: Own) =>
  bounds.allowUnknown ? {} : { mustBeOffered: namedOf(services) };

/** Waits until the gate is open and goes through; waits again if other nodes were quicker, or more would go offline. */
async function goOut(own: Own, signal: AbortSignal): Promise<GateResult> {
  const { deps, options } = own;
  let { gate: asked } = own;
  const { node } = asked;
  const { prefix, scope } = options;
  const waiting = startWaiting(own.deps.clock, own.options.wait, signal);
  const effects = { consul: deps.consul, deps };
  try {
    for (let first = true; ; first = false) {
      const seen = await lookOn({ ...own, gate: asked }, { ...waiting, ...(first && toBeOffered(own)) });
      if (seen.kind === 'closed') return { kind: 'closed', node, verdicts: seen.verdicts };
      let { verdicts } = seen;
      const look = async (during: AbortSignal) => {
        const now = await confirmOpen(effects, asked, {
          signal: during,
          seenMs: seen.seenMs,
          trying: waiting.patience,
        });
        ({ verdicts } = now);
        return now.kind === 'closed' ? now : undefined;
      };
      const groups = deps.inside?.node === node ? deps.inside.groups : [];
      const { services } = asked;
      const inside = groups.length > 0;
      const request = { prefix, node, services, scope, run: deps.run, groups, inside, look };
      const entered = await enter({ ...effects, agent: agentOf(own) }, request, signal);
      if (entered.kind === 'entered') return { ...entered, node, verdicts };
      if (entered.kind === 'more') {
        const more = { services, node, more: entered.services };
        asked = { ...asked, services: await withMore(deps.consul, more, signal) };
        for (const service of entered.services) asked.seenHere.add(service);
      } else if (waiting.patience.aborted) return { kind: 'closed', node, verdicts };
    }
  } finally {
    waiting.end();
  }
}

const agentOf = ({ deps }: Own): NodeAgent => ({ consul: deps.agent ?? deps.consul, deps });

/** Puts back services that any run of runlock took out, unless a live run needs them out. */
async function leave(own: Own, signal: AbortSignal): Promise<GateResult> {
  const { deps, gate: asked, options } = own;
  const { node } = asked;
  const limits = { ...FIRST_CONTACT, signal };
  const effects = { consul: deps.consul, deps, agent: agentOf(own) };
  const services = asSpelt(asked.services, await effects.agent.consul.agentServices(limits));
  const exit = {
    prefix: options.prefix,
    node,
    run: deps.run,
    services,
    mark: undefined,
    how: 'by-hand',
  } as const;
  const { ended, foreign, kept } = await leaveService(effects, exit, limits);
  return { kind: 'left', node, ended, stays: foreign, kept };
}

/** Spells services as the agent does, so that they can be put back whatever case the user writes. */
function asSpelt(services: readonly string[], offered: readonly { readonly service: string }[]): string[] {
  const names = offered.map(({ service }) => service);
  const spelt = services.flatMap((name) => {
    const same = names.filter((one) => one.toLowerCase() === name.toLowerCase());
    return same.length === 0 || same.includes(name) ? [name] : same;
  });
  return [...new Set(spelt)];
}
