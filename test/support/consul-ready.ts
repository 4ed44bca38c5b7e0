// Waits for what a test's Consul agents have to agree on.
import type { Agent } from './consul.ts';

/** Rejects, with the end of the agent's log, when it ended or time is up. */
export async function waitUntilReady(agent: Agent, timeoutMs: number): Promise<void> {
  const found = await poll(timeoutMs, async () => {
    if (!agent.running()) throw new Error(`${agent.name} ended by itself; its log ends:\n${tail(agent)}`);
    return (await isReady(agent)) ? true : undefined;
  });
  if (!found)
    throw new Error(`${agent.name} was not ready after ${timeoutMs} ms; its log ends:\n${tail(agent)}`);
}

/** Asks for all that a lock needs. The session has Consul's default checks: so the node is in the catalogue, and healthy. */
async function isReady({ http, kv, name }: Agent): Promise<boolean> {
  try {
    const leader = await http('GET', '/v1/status/leader', undefined, { timeoutMs: 2000 });
    if (leader.status !== 200 || leader.json() === '') return false;
    const session = await http('PUT', '/v1/session/create', { TTL: '60s' }, { timeoutMs: 2000 });
    if (session.status !== 200) return false;
    const { ID } = session.json() as { ID: string };
    await http('PUT', `/v1/session/destroy/${ID}`);
    await kv.put(`.ready/${name}`, '');
    return await kv.delete(`.ready/${name}`);
  } catch {
    return false;
  }
}

/** `rpc` has the servers' own addresses, in the same order. */
export async function findLeader(
  servers: readonly Agent[],
  rpc: readonly string[],
  timeoutMs: number,
): Promise<Agent> {
  const found = await poll(timeoutMs, async () => {
    const asked = await Promise.all(servers.map(askLeader));
    const named = new Set(asked.filter((answer) => answer !== undefined));
    const index = rpc.indexOf([...named].join());
    // The others go on naming a leader that hangs: it has to answer too.
    return asked[index] === undefined ? undefined : servers[index];
  });
  if (found === undefined) throw new Error(`no leader after ${timeoutMs} ms`);
  return found;
}

/** Whom this server takes for the leader; undefined when it does not answer. */
async function askLeader({ http, running }: Agent): Promise<string | undefined> {
  if (!running()) return undefined;
  return http('GET', '/v1/status/leader', undefined, { timeoutMs: 1000 }).then(
    (answer) => String(answer.json()),
    () => undefined,
  );
}

/** What `attempt` finds, or undefined when time is up. */
async function poll<T>(timeoutMs: number, attempt: () => Promise<T | undefined>): Promise<T | undefined> {
  const end = performance.now() + timeoutMs;
  while (performance.now() < end) {
    const found = await attempt();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return undefined;
}

function tail(agent: Agent): string {
  return agent.log().split('\n').slice(-15).join('\n');
}
