// A node's agent by its documents alone: its own key, held by a session, and what it writes of the targets of jobs. For
// tests of who asks and who looks, which need no agent to run.
import { onTestFinished } from 'vitest';
import { connect } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { send } from '../../src/consul/txn.ts';
import { acceptTarget, endTarget } from '../../src/jobs/end.ts';
import { agentKey } from '../../src/jobs/keys.ts';
import { lookAt } from '../../src/jobs/read.ts';
import { encodeAgent } from '../../src/jobs/records.ts';
import { startTarget, tail } from '../../src/jobs/transactions.ts';
import type { SeenTarget } from '../../src/jobs/transactions.ts';
import type { RunStep } from '../../src/lock/transactions.ts';
import type { AgentDocument, AgentTask, FinalState, TargetDocument } from '../../src/jobs/documents.ts';
import type { Agent } from './consul.ts';

export const aTask = (more: Partial<AgentTask> = {}): AgentTask => ({
  ...{
    name: 'chef',
    groups: ['prod/web'],
    allow: ['ops'],
    params: ['recipe'],
    on: [],
    when: [],
    publish: [],
  },
  ...more,
});

/** Until its session is destroyed. Returns what destroys it. */
export async function playAgent(
  agent: Agent,
  node: string,
  more: Partial<AgentDocument> = {},
): Promise<() => Promise<void>> {
  const document: AgentDocument = {
    ...{ node, version: '0.1.0', bootId: 'b', host: `${node}.example`, pid: 4711 },
    ...{ since: new Date().toISOString(), tasks: [aTask()] },
    ...more,
  };
  const made = await agent.http('PUT', '/v1/session/create', { Behavior: 'delete', LockDelay: '0s' });
  const { ID } = made.json() as { ID: string };
  const isHeld = await agent.kv.put(agentKey('runlock', node), encodeAgent(document), { acquire: ID });
  if (!isHeld) throw new Error(`the key of ${node}'s agent is held already`);
  return async () => {
    await agent.http('PUT', `/v1/session/destroy/${ID}`);
  };
}

const clock = {
  ...{ now: Date.now, monotonicMs: () => performance.now(), earliest: Date.now, latest: Date.now },
  sleep: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
};

/** What a node's agent and its run write of one target of a job, by their own transactions. Closed with the test. */
export function playTarget(agent: Agent, job: string, node: string) {
  const [principal = '', id = ''] = job.split('/');
  const consul = connect(consulSettings(agent.env), { clock, emit: () => undefined });
  onTestFinished(() => consul.close());
  const { signal } = new AbortController();
  const ref = { principal, id };
  const of = { ...{ consul, prefix: 'runlock', signal, ref, node }, deps: { clock, random: Math.random } };
  const change = async (stepsOf: (target: SeenTarget) => readonly RunStep[]) => {
    const look = await lookAt(of, of, { signal });
    if (look.kind !== 'target') throw new Error(`no target: ${look.kind}`);
    const result = await send(consul, stepsOf(look.target), { signal, rule: '' });
    if (result.kind !== 'done') throw new Error(`refused: ${result.why}`);
  };
  return {
    accept: () => acceptTarget(of),
    run: (run: string) =>
      change((target) => startTarget(target, { run, bootId: 'b', at: new Date().toISOString() })),
    tail: (line: string) => change((target) => tail(target, line)),
    end: (state: FinalState, more: Partial<TargetDocument> = {}) =>
      endTarget(of, {
        end: () => ({ ...more, state, endedAt: new Date().toISOString() }),
        isNode: true,
      }),
  };
}
