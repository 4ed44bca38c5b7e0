// Looks at a service from outside, after every change, for as long as a test goes on: who was offline at any moment, and why.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Agent } from './consul.ts';
import { uptimeMs } from './history/history.ts';
import { eventually } from './processes.ts';
import { SEEN_MS, readHealth } from './services.ts';
import type { Seen } from './services.ts';

/** One look. Two changes between two looks are seen as one. */
export interface Look {
  /** Milliseconds since boot. */
  readonly atMs: number;
  /** How many instances there were. */
  readonly total: number;
  readonly offline: readonly Seen[];
}

export interface Watcher {
  /** In the order in which they were seen; each differs from the one before. */
  looks(): Promise<readonly Look[]>;
  /** The most that were offline at one time. */
  most(): Promise<number>;
  /** Names of all that were offline at some time, each once, in this order. */
  everOffline(): Promise<string[]>;
  /** Resolves when these, and no others, are offline. */
  untilOffline(...names: string[]): Promise<void>;
  stop(): Promise<void>;
}

/** Watches through `agent`, which no fault of the test should hit. */
export function watchService(agent: Pick<Agent, 'http'>, service: string): Watcher {
  const ended = new AbortController();
  const looks: Look[] = [];
  let newest = 0;
  const take = ({ instances, index }: { instances: readonly Seen[]; index: number }) => {
    // Two ask at the same time: what comes later may be older.
    if (index < newest) return;
    newest = index;
    const offline = instances
      .filter(({ critical }) => critical.length > 0)
      .sort((a, b) => a.node.localeCompare(b.node));
    const look = { atMs: uptimeMs(), total: instances.length, offline };
    const before = looks.at(-1);
    if (!before || JSON.stringify({ ...before, atMs: 0 }) !== JSON.stringify({ ...look, atMs: 0 }))
      looks.push(look);
  };
  const watching = (async () => {
    let index = 0;
    while (!ended.signal.aborted) {
      try {
        const seen = await readHealth(agent, service, { index, signal: ended.signal });
        take(seen);
        index = seen.index < index ? 0 : seen.index;
      } catch {
        index = 0;
        await sleep(50);
      }
    }
  })();
  const all = async () => {
    take(await readHealth(agent, service));
    return [...looks];
  };
  const names = ({ offline }: Look) => offline.map(({ node }) => node);
  return {
    looks: all,
    most: async () => Math.max(0, ...(await all()).map(({ offline }) => offline.length)),
    everOffline: async () => [...new Set((await all()).flatMap(names))],
    untilOffline: (...wanted) =>
      eventually(async () => {
        const now = (await all()).at(-1);
        const seen = now ? names(now) : [];
        if (seen.join() !== wanted.join()) throw new Error(`offline: ${JSON.stringify(now?.offline)}`);
      }, SEEN_MS),
    stop: async () => {
      ended.abort();
      await watching;
    },
  };
}
