/** What the agent of this node needs for its tasks, whom it may trust, and whether tasks of all agents start each other. */
import { circleText, circlesOf } from '../../agent/task/circles.ts';
import { servingOf } from '../../agent/serving.ts';
import type { RequestsChoice } from '../../agent/serving.ts';
import type { Task } from '../../agent/task/definition.ts';
import type { Consul, Right } from '../../consul/consul.ts';
import { isRunlockError } from '../../errors.ts';
import { agentKey, requestKeys, triggerKey, triggersPrefix } from '../../jobs/keys.ts';
import { decodeAgent } from '../../jobs/records.ts';
import type { Check } from '../../output/doctor.ts';
import { judgeAgent, judgeTriggers } from './agent-now.ts';
import { once, problem } from './contact.ts';

export interface AgentAsked {
  readonly prefix: string;
  /** This node's name, as far as it is known. */
  readonly node: string | undefined;
  readonly tasks: readonly Task[];
  readonly requests: RequestsChoice;
  /** What is said of task files already. */
  readonly files: readonly Check[];
  /** Wall-clock milliseconds. */
  readonly now: number;
  readonly signal: AbortSignal;
}

/** None if no task has a use for an agent. */
export async function checkAgent(consul: Consul, asked: AgentAsked): Promise<readonly Check[]> {
  const { tasks, node, files } = asked;
  // One that is running may have more to say of a file that can't be read.
  if (node === undefined || !(needsAgent(tasks) || files.some(({ level }) => level !== 'ok'))) return [];
  try {
    const [rights, trust, agents, triggers] = await Promise.all([
      checkRights(consul, { ...asked, node }),
      checkTrust(consul, asked),
      checkAgents(consul, { ...asked, node }),
      checkTriggers(consul, { ...asked, node }),
    ]);
    // The agent may have another token than this command, and says so of itself in the same words.
    const said = new Set(trust.map(({ found }) => found));
    return [...rights, ...trust, ...agents.filter(({ found }) => !said.has(found)), ...triggers];
  } catch (error) {
    return [problem('agent', error)];
  }
}

const needsAgent = (tasks: readonly Task[]) =>
  tasks.some(({ allow, trigger }) => allow.length > 0 || trigger !== undefined);

const principalsOf = (tasks: readonly Task[]) => [...new Set(tasks.flatMap(({ allow }) => allow))].sort();

interface Needed {
  readonly rule: string;
  readonly right: Right;
}

function rightsOf({ prefix, node, tasks }: AgentAsked & { readonly node: string }): readonly Needed[] {
  const below = (folder: string, access: Right['access']): Needed => ({
    rule: `key_prefix "${folder}" { policy = "${access}" }`,
    right: { resource: 'key', name: `${folder}runlock`, access },
  });
  const own = agentKey(prefix, node);
  const principals = principalsOf(tasks);
  return [
    {
      rule: `key "${own}" { policy = "write" }`,
      right: { resource: 'key', name: own, access: 'write' },
    },
    ...(principals.length > 0 ? [below(`${prefix}/.requests/`, 'read')] : []),
    ...principals.map((name) => below(requestKeys(prefix, name).inboxPrefix(node), 'write')),
    ...(tasks.some(({ trigger }) => trigger) ? [below(triggerKey(prefix, node, ''), 'write')] : []),
  ];
}

async function checkRights(
  consul: Pick<Consul, 'may'>,
  asked: AgentAsked & { readonly node: string },
): Promise<readonly Check[]> {
  const needed = rightsOf(asked);
  const answers = await consul.may(
    needed.map(({ right }) => right),
    once(asked.signal),
  );
  return needed.flatMap(({ rule }, at): readonly Check[] => {
    if (answers[at] !== false) return [];
    const found = `${rule.replace(/ \{.*$/, '')}: denied, but the agent needs it for its tasks`;
    return [{ check: 'agent', level: 'problem', found, fix: `add to the token's policy: ${rule}` }];
  });
}

/** Whether what stands below a principal's path is that principal's word. */
async function checkTrust(consul: Pick<Consul, 'may'>, asked: AgentAsked): Promise<readonly Check[]> {
  const { prefix, tasks, requests, signal } = asked;
  const principals = principalsOf(tasks);
  const serving = await servingOf(consul, { prefix, requests: 'served', principals }, once(signal));
  if (serving.kind !== 'refused') return [];
  const [found = '', ...fix] = serving.why.split('; ');
  return requests === 'trust-everybody'
    ? [{ check: 'agent', level: 'note', found: `${found}; requests = "trust-everybody" allows that` }]
    : [
        {
          check: 'agent',
          level: 'warning',
          found: `the agent serves no requests: ${found}`,
          fix: fix.join('; '),
        },
      ];
}

/** Whether this node's agent is running, and circles among the tasks of all. */
async function checkAgents(
  consul: Pick<Consul, 'list'>,
  { prefix, node, tasks, files, now, signal }: AgentAsked & { readonly node: string },
): Promise<readonly Check[]> {
  const { entries } = await consul.list(agentKey(prefix, ''), once(signal));
  const isKnown = (fault: string) => {
    const [file = ''] = fault.split(': ');
    return files.some(({ found }) => found.includes(file.startsWith('/') ? file : `/${file}:`));
  };
  const own = entries.find(({ key, session }) => key === agentKey(prefix, node) && session !== undefined);
  const agents = entries.flatMap((entry) => {
    try {
      return [decodeAgent(entry)];
    } catch (error) {
      if (isRunlockError(error, 'incompatible')) return [];
      throw error;
    }
  });
  const circles = circlesOf(agents);
  const said = own && agents.find((document) => document.node === node);
  const absent: Check = {
    check: 'agent',
    level: 'warning',
    found: `no agent of ${node} is running, so nothing hears of requests and changes for its tasks`,
    fix: "start it: systemctl enable --now runlock-agent, or 'runlock agent'",
  };
  return [
    ...(own ? judgeAgent(said ?? { node }, { now, isKnown }) : needsAgent(tasks) ? [absent] : []),
    ...circles.map((circle): Check => ({
      check: 'agent',
      level: 'warning',
      found: `tasks start each other: ${circleText(circle)}`,
      fix: 'let one of them start by something that none of the others changes; until then only triggers_per_hour stops them',
    })),
  ];
}

async function checkTriggers(
  consul: Pick<Consul, 'list'>,
  { prefix, node, now, signal }: AgentAsked & { readonly node: string },
): Promise<readonly Check[]> {
  try {
    const { entries } = await consul.list(triggersPrefix(prefix, node), once(signal));
    return judgeTriggers({ prefix, node, now, entries });
  } catch (error) {
    // That the right is missing is said already, where it is needed.
    if (isRunlockError(error, 'forbidden')) return [];
    throw error;
  }
}
