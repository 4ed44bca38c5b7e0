// Whether a node still hears of each request that is open on it: its pointer goes with the target's end, never before.
import { read } from '../../history/observer.ts';
import type { StoredPair } from '../../history/observer.ts';
import { homeOf } from './nodes.ts';
import { isOver } from './observed.ts';
import type { AgentsWorld } from './world.ts';

const OPEN = ['accepted', 'waiting', 'running', 'rebooting'];

const stateOf = ({ state }: Readonly<Record<string, unknown>>) =>
  typeof state === 'string' ? state : 'queued';

/** @returns targets that are under way without a pointer. Says nothing while Consul does not answer. */
export async function lostPointers({ server, asked, observing }: AgentsWorld): Promise<readonly string[]> {
  const limit = { timeoutMs: 3_000 };
  const get = (path: string) => server.http('GET', `/v1/kv/runlock/${path}`, undefined, limit);
  const looks = observing.jobs();
  // Once a job is open all its pointers have been written.
  const open = asked.filter(({ name }) => {
    const seen = looks.get(name) ?? [];
    return seen.at(-1)?.stage.value.kind === 'open' && !isOver(seen);
  });
  if (open.length === 0) return [];
  try {
    const answer = await get('.requests/?keys&consistent');
    const pointers = new Set(answer.status === 200 ? (answer.json() as string[]) : []);
    const lost: string[] = [];
    for (const { name, job } of open) {
      const { principal, id } = job;
      const gone = job.nodes.filter(
        (node) => !pointers.has(`runlock/.requests/${principal}/inbox/${node}/${id}`),
      );
      if (gone.length === 0) continue;
      // Later than the pointers: no target that has ended comes back from there.
      const tree = await get(`${homeOf(job)}/.jobs/${name}/?recurse&consistent`);
      const at = new Map(
        (tree.status === 200 ? (tree.json() as StoredPair[]) : []).map((pair) => [pair.Key, read(pair)]),
      );
      const value = (key: string) => at.get(`runlock/${homeOf(job)}/.jobs/${name}/${key}`) ?? {};
      if (value('stage')['kind'] !== 'open') continue;
      for (const node of gone) {
        const state = stateOf(value(`nodes/${node}`));
        if (state === 'queued' || OPEN.includes(state))
          lost.push(`${name} is ${state} on ${node}, and its pointer is gone`);
      }
    }
    return lost;
  } catch {
    return [];
  }
}
