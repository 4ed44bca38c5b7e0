// What stands in Consul, matched with the processes behind it.
import type { Group, Live, World } from './world.ts';

/** Somebody who is there to be hit, with the session that keeps their lock or ticket. */
export interface Present {
  readonly live: Live;
  readonly session: string;
}

export interface Claim {
  readonly node: string;
  readonly run: string;
  readonly state: string;
  readonly pid: number;
  /** Of the session that holds the slot's lock. */
  readonly lockedBy?: string | undefined;
}

export interface Look {
  readonly running: readonly Present[];
  /** In the order of the queue. */
  readonly waiting: readonly Present[];
  /** Claims without a living runlock behind them; their sessions may live on for a while. */
  readonly stale: readonly Claim[];
}

interface Pair {
  readonly Key: string;
  readonly Value: string | null;
  readonly Session?: string;
  readonly CreateIndex: number;
}

/** Undefined: Consul does not answer just now. */
export async function lookAt({ server }: World, { plan, living }: Group): Promise<Look | undefined> {
  const root = `runlock/${plan.name}/`;
  const answer = await server
    .http('GET', `/v1/kv/${root}?recurse&consistent`, undefined, { timeoutMs: 3_000 })
    .catch(() => undefined);
  if (answer?.status !== 200 && answer?.status !== 404) return undefined;
  const pairs = answer.status === 404 ? [] : (answer.json() as Pair[]);
  const byName = new Map(pairs.map((pair) => [pair.Key.slice(root.length), pair]));
  const find = (pid: unknown) => [...living].find((live) => live.node.pid === pid && live.isAlive());
  const present = (pid: unknown, session: string | undefined): Present[] => {
    const live = find(pid);
    return live && session !== undefined ? [{ live, session }] : [];
  };
  const tickets = [...byName].filter(([name]) => name.startsWith('.queue/')).map(([, pair]) => pair);
  const claims = [...byName].flatMap(([name, pair]) => {
    const slot = /^\.slot\/(\d+)\/owner$/.exec(name)?.[1];
    if (slot === undefined) return [];
    const lockedBy = byName.get(`.slot/${slot}/lock`)?.Session;
    return [{ ...(read(pair) as unknown as Claim), lockedBy }];
  });
  return {
    running: claims.flatMap(({ pid, lockedBy }) => present(pid, lockedBy)),
    waiting: tickets
      .sort((a, b) => a.CreateIndex - b.CreateIndex)
      .flatMap((pair) => present(read(pair)['pid'], pair.Session)),
    stale: claims.filter(({ pid }) => !find(pid)),
  };
}

function read({ Value }: Pair): Readonly<Record<string, unknown>> {
  return JSON.parse(Buffer.from(Value ?? '', 'base64').toString()) as Record<string, unknown>;
}
