// Promise 7 on a terminal: what a waiting run shows costs the same whoever else waits, and whatever lies below the prefix.
import { expect, onTestFinished, test } from 'vitest';
import { setTimeout as sleep } from 'node:timers/promises';
import { startAgent } from '../support/consul.ts';
import { startProxy } from '../support/proxy.ts';
import { eventually } from '../support/processes.ts';
import { startInTerminal } from '../support/terminal.ts';
import { runlock } from '../support/runlock.ts';

const WINDOW_MS = 6_000;

/** A run on a terminal, behind a holder and `waiters` others, while something changes below the group four times a second. */
async function costOf({ waiters, records }: { waiters: number; records: number }) {
  await using agent = await startAgent({ config: { limits: { http_max_conns_per_client: 1000 } } });
  await using proxy = await startProxy(agent);
  await runlock(agent, ['acquire', 'prod/web', '--node', 'web00']);
  for (let i = 0; i < records; i += 50) {
    const operations = Array.from({ length: 50 }, (_, j) => ({
      KV: { Verb: 'set', Key: `runlock/prod/web/.runs/n${i + j}`, Value: btoa('x'.repeat(300)) },
    }));
    await agent.kv.txn(operations);
  }
  const session = async () => {
    const made = await agent.http('PUT', '/v1/session/create', { Behavior: 'delete', TTL: '3600s' });
    return (made.json() as { ID: string }).ID;
  };
  const ticket = (node: string) =>
    JSON.stringify({
      ...{ v: 1, node, run: crypto.randomUUID(), since: new Date().toISOString(), command: 'sh', pid: 1 },
    });
  let last = '';
  for (let i = 0; i < waiters; i++) {
    last = await session();
    await agent.kv.put(`runlock/prod/web/.queue/${last}`, ticket(`other${i}`), { acquire: last });
  }
  if (last !== '') await agent.kv.put('runlock/prod/web/.tail', JSON.stringify({ v: 1, session: last }));
  const started = proxy.counts();
  const args = ['exec', '-g', 'prod/web', '--node', 'web01', '--', 'true'];
  const screen = startInTerminal(agent, args, { env: proxy.env });
  await screen.shows(new RegExp(`place ${waiters + 1} · web00 held`));
  const joined = proxy.counts();
  const done = new AbortController();
  onTestFinished(() => done.abort());
  const changing = (async () => {
    for (let i = 0; !done.signal.aborted; i++) {
      await agent.kv.put('runlock/prod/web/.runs/busy', `${i}`);
      await sleep(250);
    }
  })();
  // What is measured is what happens in a while, so this test takes a while.
  await sleep(WINDOW_MS);
  const waited = proxy.counts();
  done.abort();
  await changing;
  screen.type('\x03');
  await eventually(async () => expect(await agent.kv.keys('runlock/prod/web/.node/')).toEqual([]));
  const between = (a: typeof started, b: typeof started) => ({
    requests: b.requests - a.requests,
    bytes: b.bytesIn + b.bytesOut - a.bytesIn - a.bytesOut,
  });
  return { joining: between(started, joined), waiting: between(joined, waited) };
}

test(
  'on a terminal it asks once for its place, and for nothing that grows with runs or records',
  { timeout: 120_000 },
  async () => {
    const few = await costOf({ waiters: 2, records: 0 });
    const many = await costOf({ waiters: 40, records: 800 });
    // A renewal, and what watches of freezes see of their neighbours.
    expect(many.waiting.requests).toBeLessThanOrEqual(few.waiting.requests + 2);
    expect(many.waiting.bytes).toBeLessThan(4_000);
    expect(many.waiting.bytes).toBeLessThan(few.waiting.bytes + 1_000);
    // Its place: one listing of the tickets, of less than 700 bytes each.
    expect(many.joining.requests).toBe(few.joining.requests);
    expect(many.joining.bytes - few.joining.bytes).toBeLessThan(38 * 700);
  },
);
