// Reads a group's keys from Consul after every change, for as long as a test goes on. Changes between two looks are not seen one by one.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Agent } from '../consul.ts';
import { uptimeMs } from './history.ts';
import type { Served, SlotTrace, TicketTrace } from './history.ts';

export interface Observed {
  readonly tickets: readonly TicketTrace[];
  readonly served: readonly Served[];
  readonly slotTraces: readonly SlotTrace[];
  readonly recorded: readonly string[];
}

export interface Observer {
  /** What was seen up to now, a look of this moment included. */
  seen(): Promise<Observed>;
  stop(): Promise<void>;
}

export interface StoredPair {
  readonly Key: string;
  readonly Value: string | null;
  readonly Session?: string;
  readonly CreateIndex: number;
  readonly ModifyIndex: number;
}

/** Watches `runlock/<group>/` through `agent`, which no fault of the test should hit. */
export function observe(agent: Pick<Agent, 'http'>, group: string): Observer {
  const memory = remember(group);
  const watch = watchTree(agent, `runlock/${group}/`, memory.take);
  return {
    seen: async () => {
      await watch.look();
      return memory.observed();
    },
    stop: watch.stop,
  };
}

export interface TreeWatch {
  /** Looks at this moment, too. */
  readonly look: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

/** Calls `take` with what stands below `prefix`, after every change that a look shows, and Consul's index of that look. */
export function watchTree(
  agent: Pick<Agent, 'http'>,
  prefix: string,
  take: (pairs: readonly StoredPair[], index: number) => void,
): TreeWatch {
  const ended = new AbortController();
  const look = async (query: string, timeoutMs: number) => {
    const path = `/v1/kv/${prefix}?recurse${query}`;
    const answer = await agent.http('GET', path, undefined, { timeoutMs, signal: ended.signal });
    if (answer.status !== 200 && answer.status !== 404) throw new Error(`status ${answer.status}`);
    const index = Number(answer.headers['x-consul-index']);
    take(answer.status === 404 ? [] : (answer.json() as StoredPair[]), index);
    return index;
  };
  const watching = (async () => {
    let index = 0;
    while (!ended.signal.aborted) {
      try {
        const now = await look(index > 0 ? `&index=${index}&wait=10s` : '', 15_000);
        index = now < index ? 0 : now;
      } catch {
        index = 0;
        await sleep(50);
      }
    }
  })();
  return {
    look: async () => {
      await look('&consistent', 10_000);
    },
    stop: async () => {
      ended.abort();
      await watching;
    },
  };
}

/** Folds looks into traces. Pure but for its memory. */
export function remember(group: string) {
  const tickets = new Map<string, TicketTrace>();
  const served = new Map<number, Served>();
  const slotTraces: SlotTrace[] = [];
  const recorded = new Set<string>();
  const current = new Map<number, string>();
  // Wall-clock times in records become times since boot.
  const bootMs = Date.now() - uptimeMs();
  return {
    take: (pairs: readonly StoredPair[], index: number) => {
      const base = `runlock/${group}/`;
      const at = new Map(pairs.map((pair) => [pair.Key.slice(base.length), pair]));
      for (const [name, pair] of at) {
        if (name.startsWith('.queue/')) addTicket(pair, index);
        if (name.startsWith('.runs/')) recorded.add(String(read(pair)['run']));
      }
      const last = at.get('.last');
      const session = read(last)['session'];
      if (last && typeof session === 'string')
        served.set(last.ModifyIndex, { session, index: last.ModifyIndex });
      addSlots(at);
    },
    observed: (): Observed => ({
      tickets: [...tickets.values()],
      served: [...served.values()],
      slotTraces: [...slotTraces],
      recorded: [...recorded],
    }),
  };

  function addTicket(pair: StoredPair, index: number) {
    const { node, run } = read(pair);
    if (pair.Session === undefined || typeof node !== 'string' || typeof run !== 'string') return;
    const { Session: session, CreateIndex: createIndex } = pair;
    tickets.set(session, { session, node, run, createIndex, lastIndex: index });
  }

  function addSlots(at: ReadonlyMap<string, StoredPair>) {
    const numbers = [...at.keys()].flatMap((name) => /^\.slot\/(\d+)\//.exec(name)?.[1] ?? []);
    for (const slot of new Set([...current.keys(), ...numbers.map(Number)])) {
      const trace = slotTrace(slot, at);
      const text = JSON.stringify({ ...trace, atMs: 0 });
      if (current.get(slot) !== text) slotTraces.push(trace);
      current.set(slot, text);
    }
  }

  function slotTrace(slot: number, at: ReadonlyMap<string, StoredPair>): SlotTrace {
    const owner = at.get(`.slot/${slot}/owner`);
    const lockedBy = at.get(`.slot/${slot}/lock`)?.Session;
    const trace = { slot, atMs: uptimeMs(), ...(lockedBy !== undefined && { lockedBy }) };
    if (!owner) return trace;
    const { node, run, state, hold, heldUntil } = read(owner) as Record<string, string>;
    const until = heldUntil === undefined ? {} : { heldUntilMs: Date.parse(heldUntil) - bootMs };
    const named = { node: String(node), run: String(run), state: String(state) };
    return { ...trace, claim: { ...named, hold: hold as 'forever', ...until, index: owner.ModifyIndex } };
  }
}

/** A record's fields; none where it is no record. */
export function read(pair: StoredPair | undefined): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(Buffer.from(pair?.Value ?? '', 'base64').toString());
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
