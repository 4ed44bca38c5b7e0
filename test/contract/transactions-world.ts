// A group of its own for each test of a transaction, and what can stand in the transaction's way.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { encode } from '../../src/lock/records.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import type { Claim, NodeMark, RunRecord, Ticket } from '../../src/lock/records.ts';
import type { GroupKeys } from '../../src/lock/keys.ts';
import { send } from '../../src/consul/txn.ts';
import type { Result as ResultOf } from '../../src/consul/txn.ts';
import type { RunObstacle, RunStep, Seat } from '../../src/lock/transactions.ts';
import { useAgent } from '../support/use-agent.ts';

const since = '2026-03-01T12:00:00.000Z';
const runner = { pid: 4711, startTime: '1', bootId: 'b' };
export const mark: NodeMark = { run: 'r1', since, ...runner };
export const ticket: Ticket = { node: 'web01', run: 'r1', since, command: 'chef-client', pid: 4711 };
export const mine: Claim = {
  ...{ node: 'web01', state: 'running', run: 'r1', since, command: 'chef-client', hold: 'forever' },
  ...runner,
};
export const earlier: Claim = { ...mine, run: 'r0', state: 'failed' };
export const others: Claim = { ...mine, node: 'web02', run: 'r2', state: 'failed' };
export const record: RunRecord = {
  ...{ node: 'web01', run: 'r1', outcome: 'succeeded', command: 'chef-client', slot: 1, endedAt: since },
  ...{ waitedMs: 0, ranMs: 1 },
};

/** Of the file that imports this. */
export const agent = useAgent();
let consul: Consul;
let worlds = 0;

const unused = () => Promise.reject(new Error('nothing waits here'));
beforeAll(() => {
  const effects = { clock: { now: Date.now, monotonicMs: () => performance.now(), sleep: unused } };
  consul = connect(consulSettings(agent.env), { ...effects, emit: () => undefined });
});
afterAll(() => consul.close());

type Result = ResultOf<RunObstacle>;

/** A group of its own, and two sessions in it. */
export interface World {
  readonly prefix: string;
  readonly keys: GroupKeys;
  readonly me: string;
  readonly other: string;
  readonly seat: Seat;
}

export async function newWorld(): Promise<World> {
  const prefix = `test-${(worlds += 1)}`;
  const keys = groupKeys(prefix, 'prod/web');
  const [me, other] = [await newSession(), await newSession()];
  return { prefix, keys, me, other, seat: { keys, session: me, slot: 1 } };
}

async function newSession(): Promise<string> {
  const request = { TTL: '600s', Behavior: 'delete', LockDelay: '0s', NodeChecks: [] };
  return ((await agent.http('PUT', '/v1/session/create', request)).json() as { ID: string }).ID;
}

export const run = (steps: readonly RunStep[]): Promise<Result> =>
  send(consul, steps, { signal: new AbortController().signal, rule: 'rule' });

export async function done(steps: readonly RunStep[]): Promise<Result> {
  const result = await run(steps);
  expect(result).toMatchObject({ kind: 'done' });
  return result;
}

/** Everything below the prefix by its name in the group, with who holds its lock. */
export async function stateOf({ prefix, keys, me, other }: World): Promise<Record<string, unknown>> {
  const names = new Map([
    [me, 'me'],
    [other, 'other'],
  ]);
  const pairs = await agent.kv.tree(`${prefix}/`);
  return Object.fromEntries(
    pairs.map(({ Key, Value, Session }) => {
      const by = Session === undefined ? {} : { by: names.get(Session) };
      return [Key.replace(keys.prefix, '').replace(me, 'ME'), { ...(JSON.parse(Value) as object), ...by }];
    }),
  );
}

export const v1 = (value: object, by?: 'me' | 'other') => ({ v: 1, ...value, ...(by && { by }) });

export const indexOf = async (key: string): Promise<number> => (await agent.kv.get(key))?.ModifyIndex ?? 0;

export async function putOwner({ keys }: World, claim: Claim): Promise<number> {
  await agent.kv.put(keys.owner(1), encode(claim));
  return indexOf(keys.owner(1));
}

/** What can stand in the way; each makes one check fail and leaves the others alone. */
type Spoil = (world: World) => Promise<unknown>;
export const lockFor = (key: string, session: string) => agent.kv.put(key, '{}', { acquire: session });
const nodeTaken: Spoil = ({ keys, other }) => lockFor(keys.node('web01'), other);
export const lockTaken: Spoil = ({ keys, other }) => lockFor(keys.lock(1), other);
export const lockGone: Spoil = ({ keys }) => agent.kv.delete(keys.lock(1));
const ticketGone: Spoil = ({ keys, me }) => agent.kv.delete(keys.queue(me));
export const ticketThere: Spoil = ({ keys, me }) => agent.kv.put(keys.queue(me), '{}');
const ownerThere: Spoil = (world) => putOwner(world, others);
const ownerGone: Spoil = ({ keys }) => agent.kv.delete(keys.owner(1));
export const sessionGone: Spoil = ({ me }) => agent.http('PUT', `/v1/session/destroy/${me}`);
export const frozen =
  (level: number): Spoil =>
  ({ keys }) =>
    agent.kv.put(keys.freezes[level] ?? '', '{}');
export const both =
  (...spoils: Spoil[]): Spoil =>
  async (world) => {
    for (const spoil of spoils) await spoil(world);
  };
const ownerChanged: Spoil = async ({ keys }) => {
  const claim = JSON.parse((await agent.kv.get(keys.owner(1)))?.Value ?? '') as Claim;
  await agent.kv.put(keys.owner(1), JSON.stringify({ ...claim, by: 'somebody' }));
};

export type Prepare = (world: World) => Promise<RunStep[]>;
export type Refusal = [what: string, obstacle: RunObstacle, key: (world: World) => string, spoil: Spoil];

export const nodeKey = ({ keys }: World) => keys.node('web01');
export const queueKey = ({ keys, me }: World) => keys.queue(me);
export const ownerKey = ({ keys }: World) => keys.owner(1);
export const lockKey = ({ keys }: World) => keys.lock(1);
const freezeKey =
  (level: number) =>
  ({ keys }: World) =>
    keys.freezes[level] ?? '';

export const refusedFrozen: Refusal[] = [
  ['the group is frozen', 'freeze', freezeKey(0), frozen(0)],
  ['the group above is frozen', 'freeze', freezeKey(1), frozen(1)],
  ['everything is frozen', 'freeze', freezeKey(2), frozen(2)],
];
export const refusedNode: Refusal = ['another session has the node', 'node', nodeKey, nodeTaken];
export const refusedLock: Refusal = ['another session has the lock', 'lock', lockKey, lockTaken];
export const refusedTicket: Refusal = ['the ticket is gone', 'ticket', queueKey, ticketGone];
export const refusedClaimed: Refusal[] = [
  ['there is a claim', 'owner', ownerKey, ownerThere],
  ['there is a claim and a lock, for the claim', 'owner', ownerKey, both(lockTaken, ownerThere)],
];
export const refusedChanged: Refusal[] = [
  ['the claim has changed', 'owner', ownerKey, ownerChanged],
  ['the claim is gone', 'owner', ownerKey, ownerGone],
];
export const refusedLockedOwner: Refusal = [
  'the claim has changed and is locked, for the claim',
  'owner',
  ownerKey,
  both(lockTaken, ownerChanged),
];

/** Each violation refuses everything: nothing at all has changed. */
export function refuses(prepare: Prepare, refusals: readonly Refusal[]): void {
  test.each(refusals)('is refused when %s: %s', async (_, obstacle, key, spoil) => {
    const world = await newWorld();
    const steps = await prepare(world);
    await spoil(world);
    const before = await agent.kv.tree(`${world.prefix}/`);
    expect(await run(steps)).toMatchObject({ kind: 'refused', obstacle, key: key(world) });
    expect(await agent.kv.tree(`${world.prefix}/`)).toEqual(before);
  });
}

/** The index that a key has now. A check before the write answers with the index that the key had. */
export const indexIn = (result: Result, key: string): number | undefined =>
  result.kind === 'done' ? result.entries.findLast((entry) => entry.key === key)?.modifyIndex : undefined;
