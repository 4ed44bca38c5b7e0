/** `runlock doctor`: checks everything that runs in a group need. Changes nothing, and leaves nothing in Consul. */
import { networkInterfaces } from 'node:os';
import { addressOf, whereabouts } from '../../consul/consul.ts';
import type { Consul, Inspection, Whereabouts } from '../../consul/consul.ts';
import type { Deps } from '../../platform/deps.ts';
import { groupKeys } from '../../lock/keys.ts';
import type { Check, DoctorReport, Level } from '../../output/doctor.ts';
import type { RequestsChoice } from '../../agent/serving.ts';
import { checkAgent } from './agent-checks.ts';
import { judgeConnections } from './connections.ts';
import { contact, problem } from './contact.ts';
import { tryGateRights } from './gate-rights.ts';
import type { DoctorGate } from './gate-rights.ts';
import { findLeftovers } from './leftovers.ts';
import { judgeNode, tryKeys, trySession, tryToken } from './rights.ts';
import { tryStateRights, watchedServices } from './state-rights.ts';
import type { DoctorStates } from './state-rights.ts';
import { judgeSurroundings } from './surroundings.ts';
import type { Defined } from '../task/tasks.ts';
import { readVersions } from './versions.ts';
import type { RunFiles } from '../../process/run-file.ts';

/** What the task files of this host say, and whether they are fit. */
export interface TaskFilesFound {
  readonly checks: readonly Check[];
  readonly tasks: readonly Defined[];
}

export interface DoctorOptions {
  readonly prefix: string;
  /** By name. */
  readonly groups: readonly string[];
  /** The owner's name, as for `exec`; the agent's node unless given. */
  readonly node?: string;
  /** For the groups whose runs name services. */
  readonly gates: readonly DoctorGate[];
  /** For the groups whose runs wait for conditions or publish states. */
  readonly states: readonly DoctorStates[];
  /** Address of the node's own agent, if that is another agent than the configured one. */
  readonly agent?: string;
  /** The tasks of this host, and what is said of their files. */
  readonly tasks?: TaskFilesFound;
  /** Whom the agent trusts, as the configuration says. */
  readonly requests?: RequestsChoice;
  /** The configuration file, if there is one; `problem` names file and line. */
  readonly config?: { readonly path: string; readonly settings: number } | { readonly problem: string };
}

export interface DoctorDeps extends Omit<Deps, 'emit'> {
  /** Version of the Node.js that runs this, such as `20.19.0`. Undefined: the program is a single file. */
  readonly nodeVersion: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Where runs are recorded on this host. */
  readonly runFiles: Pick<RunFiles, 'where'>;
  /** @throws RunlockError `config`. */
  readonly connect: (agent?: string) => Promise<Consul>;
}

/** Never throws because of a problem, which is in the report; each request has its own short deadline. */
export async function doctor(
  deps: DoctorDeps,
  options: DoctorOptions,
  signal: AbortSignal,
): Promise<DoctorReport> {
  const { env, clock, host, nodeVersion, runFiles } = deps;
  const { prefix, groups } = options;
  const { address, from } = addressOf(env);
  const source = from === 'the default' ? `${from}; set CONSUL_HTTP_ADDR to change it` : `from ${from}`;
  const checks: Check[] = [
    { check: 'address', level: 'ok', found: `Consul at ${address} (${source})` },
    ...(await checkConsul(deps, options, signal)),
    judgeConfig(options),
    ...(options.tasks?.checks ?? []),
    ...judgeSurroundings({ path: env['PATH'], host, nodeVersion, runFiles }),
  ];
  const at = new Date(clock.now()).toISOString();
  return { v: 1, at, address, prefix, groups, verdict: verdictOf(checks), checks };
}

async function checkConsul(
  deps: DoctorDeps,
  options: DoctorOptions,
  signal: AbortSignal,
): Promise<readonly Check[]> {
  let where: Whereabouts;
  try {
    where = whereabouts(deps.env);
  } catch (error) {
    return [problem('address', error)];
  }
  // Closed by whoever opens it.
  const consul = await deps.connect();
  const place = judgePlace(where);
  const first = await contact(consul, { clock: deps.clock, where, signal });
  // Too many connections may be the cause: over its limit, Consul closes them silently.
  if (!first.answer) return [...place, ...first.checks, ...judgeConnections(where.remote)];
  const { host } = await deps.host.place();
  const rest = await checkRights(
    { consul, where, answer: first.answer, now: deps.clock.now(), connect: deps.connect, host },
    options,
    signal,
  );
  return [...place, ...first.checks, ...rest];
}

/** Whether the agent that answered is on another host, judging by its address. */
function isElsewhere(remote: Inspection['remote']): boolean {
  if (!remote) return false;
  const own = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  const address = remote.address.replace(/^::ffff:/, '');
  return !address.startsWith('127.') && !own.some((each) => each.address === address);
}

/** Pure. */
export function judgePlace({ namespace, partition }: Pick<Whereabouts, 'namespace' | 'partition'>): Check[] {
  const named = [
    ...(namespace === undefined ? [] : [`namespace ${namespace} (CONSUL_NAMESPACE)`]),
    ...(partition === undefined ? [] : [`partition ${partition} (CONSUL_PARTITION)`]),
  ];
  if (named.length === 0) return [];
  const fix =
    'runlock has not been tested with Consul Enterprise, only with a simulation: try an unimportant group first';
  return [{ check: 'address', level: 'note', found: named.join(', '), fix }];
}

function judgeConfig({ config }: DoctorOptions): Check {
  if (!config) return { check: 'config', level: 'ok', found: 'no configuration file' };
  if ('problem' in config) {
    const fix = 'correct the file; until then every other command exits 78';
    return { check: 'config', level: 'problem', found: config.problem, fix };
  }
  return { check: 'config', level: 'ok', found: `${config.path}: valid, ${config.settings} settings` };
}

interface Found extends Pick<DoctorDeps, 'connect'> {
  readonly consul: Consul;
  readonly where: Whereabouts;
  readonly answer: Inspection;
  /** This host's name. */
  readonly host: string;
  readonly now: number;
}

async function checkRights(
  { consul, where, answer, now, connect, host }: Found,
  options: DoctorOptions,
  signal: AbortSignal,
): Promise<readonly Check[]> {
  const connections = judgeConnections(answer.remote);
  const token = await tryToken(consul, where, { now, signal });
  // Consul would refuse all other requests for the same reason.
  if (!token.known) return [token.check, ...connections];
  const versions = await readVersions(consul, signal);
  const session = await trySession(consul, { agentNode: versions.node, signal });
  const agentNode = session.node ?? versions.node;
  const here = { host, isRemote: isElsewhere(answer.remote) };
  const all = options.groups.map((group) => groupKeys(options.prefix, group));
  const node = options.node ?? agentNode;
  const { prefix, states, agent, requests = 'served' } = options;
  const tasks = (options.tasks?.tasks ?? []).map(({ task }) => task);
  const watched = watchedServices(states);
  const gates = [...options.gates, ...(watched.length === 0 ? [] : [{ services: watched }])];
  const connectToAgent = agent === undefined ? undefined : () => connect(agent);
  const [rights, stateRights, gateRights, agents, leftovers] = await Promise.all([
    tryKeys(consul, { groups: all, node, signal }),
    tryStateRights(consul, { prefix, states, groups: all, signal }),
    tryGateRights(consul, { prefix, gates, node, agentNode, connectToAgent, signal }),
    checkAgent(consul, { prefix, node, tasks, requests, files: options.tasks?.checks ?? [], now, signal }),
    Promise.all(all.map((keys) => findLeftovers(consul, { keys, node: agentNode, now, signal }))),
  ]);
  return [
    ...[versions.check, token.check, ...session.checks],
    ...[...rights, ...stateRights, ...gateRights, ...agents],
    ...[...judgeNode(options.node, agentNode, here), ...connections, ...leftovers.flat()],
  ];
}

function verdictOf(checks: readonly Check[]): DoctorReport['verdict'] {
  const has = (level: Level) => checks.some((check) => check.level === level);
  return has('problem') ? 'problem' : has('warning') ? 'warning' : 'ok';
}
