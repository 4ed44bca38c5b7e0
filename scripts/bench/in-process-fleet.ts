/** A fleet's records, as its runs would leave them, written straight into Consul. */
import { randomUUID } from 'node:crypto';
import { groupKeys } from '../../src/lock/keys.ts';
import type { GroupKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import type { Claim, NodeMark, RunRecord, Ticket } from '../../src/lock/records.ts';
import { succeeded } from '../../test/support/consul-api.ts';
import type { Agent } from '../../test/support/consul.ts';

/** Every group has as many nodes. One of them runs, some wait, the others have run. */
export interface Fleet {
  readonly groups: number;
  readonly nodesEach: number;
  readonly waitingEach: number;
}

/** How many keys there are then. */
export async function fillFleet(agent: Agent, fleet: Fleet): Promise<number> {
  const { groups, waitingEach } = fleet;
  const sessions = await createSessions(agent, groups * (1 + waitingEach));
  const keys = Array.from({ length: groups }, (_, group) => {
    const first = group * (1 + waitingEach);
    return groupOperations(group, fleet, sessions.slice(first, first + 1 + waitingEach));
  }).flat();
  await inParallel(chunks(keys, OPERATIONS), async (operations) => {
    succeeded(
      await agent.kv.txn(operations.map((operation) => ({ KV: operation }))),
      'writing a fleet’s records',
    );
  });
  return keys.length;
}

/** A transaction takes 64 operations. */
const OPERATIONS = 64;
const PARALLEL = 32;

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = items.values();
  const worker = async () => {
    for (const item of left) await work(item);
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  const count = Math.ceil(items.length / size);
  return Array.from({ length: count }, (_, i) => items.slice(i * size, (i + 1) * size));
}

async function createSessions(agent: Agent, count: number): Promise<string[]> {
  const ids: string[] = [];
  await inParallel(Array.from({ length: count }), async () => {
    const request = { TTL: '3600s', Behavior: 'delete', LockDelay: '0s', Checks: [] };
    const answer = await agent.http('PUT', '/v1/session/create', request);
    ids.push((succeeded(answer, 'making a session').json() as { ID: string }).ID);
  });
  return ids;
}

interface Operation {
  readonly Verb: 'set' | 'lock';
  readonly Key: string;
  readonly Value: string;
  readonly Session?: string;
}

const set = (key: string, record: object): Operation => ({
  Verb: 'set',
  Key: key,
  Value: Buffer.from(encode(record)).toString('base64'),
});

const lock = (key: string, record: object, session: string): Operation => ({
  ...set(key, record),
  Verb: 'lock',
  Session: session,
});

const NOW = Date.now();
const since = (secondsAgo: number) => new Date(NOW - secondsAgo * 1000).toISOString();
const bootId = `${randomUUID()} pid:[4026531836]`;
const runner = (number: number) => ({ pid: 1000 + number, startTime: String(80_000 + number), bootId });

function groupOperations(
  number: number,
  { nodesEach, waitingEach }: Fleet,
  sessions: readonly string[],
): Operation[] {
  const keys = groupKeys('runlock', `prod/dc${number % 4}/service-${number}`);
  const nodes = Array.from({ length: nodesEach }, (_, i) => `web${number * nodesEach + i}.example.com`);
  const [running = '', ...waiting] = nodes.slice(0, 1 + waitingEach);
  const [holder = '', ...tickets] = sessions;
  const marks = [
    { session: tickets.at(-1) ?? holder, key: keys.tail },
    { session: holder, key: keys.last },
  ];
  return [
    ...runningOperations(keys, running, holder),
    ...waiting.flatMap((node, i) => waitingOperations(keys, node, tickets[i] ?? '')),
    ...marks.map(({ key, session }) => set(key, { session })),
    ...nodes.map((node, i) => set(keys.run(node), lastRun(node, i))),
  ];
}

function runningOperations(keys: GroupKeys, node: string, session: string): Operation[] {
  const run = randomUUID();
  const state = { node, state: 'running', run, since: since(20), command: 'chef-client' } as const;
  const claim: Claim = { ...state, hold: 'forever', ...runner(1) };
  return [
    lock(keys.lock(0), { run }, session),
    set(keys.owner(0), claim),
    lock(keys.node(node), mark(run, 20), session),
  ];
}

function waitingOperations(keys: GroupKeys, node: string, session: string): Operation[] {
  const run = randomUUID();
  const ticket: Ticket = { node, run, since: since(90), command: 'chef-client', pid: 4711 };
  return [lock(keys.queue(session), ticket, session), lock(keys.node(node), mark(run, 90), session)];
}

const mark = (run: string, secondsAgo: number): NodeMark => ({
  run,
  since: since(secondsAgo),
  ...runner(secondsAgo),
});

function lastRun(node: string, i: number): RunRecord {
  const figures = { waitedMs: 31_337 + i, ranMs: 44_210 + i };
  const end = { endedAt: since(1800 + i), command: 'chef-client', slot: 0 };
  return { node, run: randomUUID(), outcome: 'succeeded', exitCode: 0, ...end, ...figures };
}
