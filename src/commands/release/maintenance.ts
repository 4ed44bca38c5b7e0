/**
 * Ends maintenance that a node's failed runs left on, once its claim is cleared or gone, so that the node can work
 * again.
 */
import { FIRST_CONTACT } from '../../consul/consul.ts';
import type { Consul } from '../../consul/consul.ts';
import type { Deps } from '../../platform/deps.ts';
import { instancesOf } from '../../gate/instances.ts';
import { describeNeed } from '../../gate/describe.ts';
import { exitAtLast } from '../../gate/exit.ts';
import type { Mode } from '../../gate/maintenance.ts';
import { reasonOf } from '../../errors.ts';
import type { ReleaseResult } from './released.ts';

export interface MaintenanceEnd {
  /** Services, or the node, whose maintenance has ended. */
  readonly ended: readonly string[];
  /** Services, or the node, that runlock put into maintenance and that stay in it. */
  readonly stays: readonly string[];
  /** Why they stay: the node's own agent must be asked, or it failed to end the maintenance. */
  readonly why?: string;
  /** Set instead of `why`: which run needs the maintenance, and what ends it. */
  readonly need?: string;
}

export interface MaintenanceDeps {
  readonly consul: Consul;
  /** The node's own agent, if its address was given. */
  readonly agent: Consul | undefined;
  readonly deps: Deps;
  readonly prefix: string;
  /** The id of this release. */
  readonly run: string;
}

const NOTHING: MaintenanceEnd = { ended: [], stays: [] };

/**
 * Called after a release; never throws. Leaves the maintenance of a run that was evicted, or may still be alive,
 * because the state of its node is unknown. Also leaves maintenance that another run of the node needs.
 */
export async function endMaintenance(
  { consul, agent, deps, prefix, run }: MaintenanceDeps,
  result: ReleaseResult,
): Promise<MaintenanceEnd> {
  const { node } = result;
  if (result.kind === 'sent-away' || result.kind === 'outside') return NOTHING;
  if (result.kind === 'nothing') {
    // The claim of a failed run can be gone before its maintenance: its hold ended, or it had none. For another node do
    // nothing, because its runs in other groups are not known here.
    if (result.claim !== undefined || agent || !(await isAgentOf(consul, node))) return NOTHING;
  } else {
    const isOver = result.claims.some(({ how }) => how === 'cleared' || how === 'given-back');
    const own = isOver && (await isAgentOf(agent ?? consul, node));
    if (!own) return lookFor({ consul, deps }, node);
  }
  const own = { consul: agent ?? consul, deps };
  const exit = { prefix, node, run, services: 'all', mark: undefined, how: 'good' } as const;
  const ended = await exitAtLast({ consul, deps, agent: own }, exit);
  if (ended.kind === 'stays') return { ended: [], stays: [node], why: ended.why };
  const nameOf = ({ service }: Mode) => (service === '' ? node : `${service} on ${node}`);
  const [needed] = ended.kept;
  return {
    ended: ended.ended.map(nameOf),
    stays: ended.kept.map(({ mode }) => nameOf(mode)),
    ...(needed && { need: describeNeed(needed, prefix) }),
  };
}

/** Whether the agent is the node's own. Every check names the agent's node; without checks there is no maintenance. */
async function isAgentOf(agent: Consul, node: string): Promise<boolean> {
  try {
    const checks = await agent.agentChecks({ ...FIRST_CONTACT, signal: AbortSignal.timeout(LOOK_MS) });
    return checks.some((check) => check.node === node);
  } catch {
    // The claim is cleared already, so go on with what the catalogue shows.
    return false;
  }
}

const LOOK_MS = 10_000;

/** Looks for maintenance in the catalogue, as far as the token may see it. */
async function lookFor(
  { consul, deps }: { consul: Consul; deps: Deps },
  node: string,
): Promise<MaintenanceEnd> {
  const limits = { ...FIRST_CONTACT, signal: AbortSignal.timeout(LOOK_MS) };
  try {
    const services = (await consul.nodeServices(node, limits)) ?? [];
    const names = [...new Set(services.map(({ service }) => service))];
    const stays: string[] = [];
    for (const name of names) {
      const { entries } = await consul.health(name, limits);
      const own = instancesOf(entries).filter((one) => one.node === node);
      if (own.some(({ maintenance }) => maintenance.some(({ run }) => run !== undefined)))
        stays.push(`${name} on ${node}`);
    }
    return stays.length === 0 ? NOTHING : { ended: [], stays, why: `only ${node}'s own agent can end it` };
  } catch (error) {
    deps.emit({ event: undefined, detail: { node, fault: reasonOf(error) } });
    return NOTHING;
  }
}
