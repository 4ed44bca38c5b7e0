// The document of a node's agent, held by a session as a real agent holds it: for tests that need no agent to run.
import { agentKey } from '../../src/jobs/keys.ts';
import { encodeAgent } from '../../src/jobs/records.ts';
import type { AgentDocument, AgentTask } from '../../src/jobs/documents.ts';
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
