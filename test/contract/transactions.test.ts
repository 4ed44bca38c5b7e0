// Every transaction of the protocol on a real agent: what it does, and that each of its checks can refuse all of it.
import { describe, expect, test } from 'vitest';
import { encode } from '../../src/lock/records.ts';
import type { Claim } from '../../src/lock/records.ts';
import {
  changeClaim,
  claimAgain,
  clearClaim,
  comeBack,
  enqueue,
  grant,
  readTurn,
  recordAlone,
  release,
  removeSeen,
  takeBack,
  takeOver,
} from '../../src/lock/transactions.ts';
import {
  agent,
  both,
  done,
  earlier,
  frozen,
  indexIn,
  indexOf,
  lockFor,
  lockGone,
  lockKey,
  lockTaken,
  mark,
  mine,
  newWorld,
  nodeKey,
  others,
  ownerKey,
  putOwner,
  queueKey,
  record,
  refusedChanged,
  refusedClaimed,
  refusedFrozen,
  refusedLock,
  refusedLockedOwner,
  refusedNode,
  refusedTicket,
  refuses,
  run,
  sessionGone,
  stateOf,
  ticket,
  ticketThere,
  v1,
} from './transactions-world.ts';
import type { Prepare, World } from './transactions-world.ts';

const joinQueue = ({ keys, me }: World) => done(enqueue(keys, me, ticket, mark));

describe('joining the queue', () => {
  const prepare: Prepare = ({ keys, me }) => Promise.resolve(enqueue(keys, me, ticket, mark));

  test('takes ticket and node, and tells the predecessor, the last grant and the slots', async () => {
    const world = await newWorld();
    const { keys, me, other } = world;
    await agent.kv.put(keys.tail, encode({ session: 'before' }));
    await agent.kv.put(keys.last, encode({ session: 'first' }));
    await agent.kv.put(keys.owner(0), encode(others));
    await lockFor(keys.lock(0), other);
    const result = await done(await prepare(world));
    const read = result.kind === 'done' ? result.entries.filter(({ value }) => value !== '') : [];
    expect(read.map(({ key, value, session }) => [key, value, session])).toEqual([
      [keys.tail, encode({ session: 'before' }), undefined],
      [keys.last, encode({ session: 'first' }), undefined],
      [keys.lock(0), '{}', other],
      [keys.owner(0), encode(others), undefined],
    ]);
    const created = result.kind === 'done' && result.entries.find(({ key }) => key === keys.queue(me));
    expect(created).toMatchObject({ createIndex: (await agent.kv.get(keys.queue(me)))?.CreateIndex });
    expect(await stateOf(world)).toEqual({
      ...{ '.queue/ME': v1(ticket, 'me'), '.node/web01': v1(mark, 'me'), '.tail': v1({ session: me }) },
      ...{ '.last': v1({ session: 'first' }), '.slot/0/lock': { by: 'other' }, '.slot/0/owner': v1(others) },
    });
  });

  test('is possible where nobody ever was', async () => {
    const world = await newWorld();
    await joinQueue(world);
    expect(Object.keys(await stateOf(world))).toEqual(['.node/web01', '.queue/ME', '.tail']);
  });

  refuses(prepare, [
    refusedNode,
    ['it has a ticket', 'ticket', queueKey, ticketThere],
    ['its session is gone', 'session', nodeKey, sessionGone],
  ]);
});

test('whose turn it is can be read where there is nothing, and changes nothing', async () => {
  const world = await newWorld();
  expect(await done(readTurn(world.keys))).toEqual({ kind: 'done', entries: [] });
  expect(await stateOf(world)).toEqual({});
});

const afterGrant = ({ me }: World) => ({
  ...{ '.node/web01': v1(mark, 'me'), '.tail': v1({ session: me }), '.last': v1({ session: me }) },
  ...{ '.slot/1/lock': v1({ run: 'r1' }, 'me'), '.slot/1/owner': v1(mine) },
});

describe('a grant', () => {
  const prepare: Prepare = async (world) => {
    await joinQueue(world);
    return grant(world.seat, mine);
  };

  test('takes lock and claim, and leaves the queue as the last that was granted', async () => {
    const world = await newWorld();
    const result = await done(await prepare(world));
    expect(await stateOf(world)).toEqual(afterGrant(world));
    expect(indexIn(result, ownerKey(world))).toBe(await indexOf(ownerKey(world)));
  });

  refuses(prepare, [
    refusedTicket,
    ['its session is gone', 'ticket', queueKey, sessionGone],
    ...refusedFrozen,
    ...refusedClaimed,
    refusedLock,
  ]);
});

describe('taking over', () => {
  const prepare: Prepare = async (world) => {
    await joinQueue(world);
    return takeOver(world.seat, mine, await putOwner(world, others));
  };

  test("puts the own claim in another's place, and leaves the queue as the last that was granted", async () => {
    const world = await newWorld();
    const result = await done(await prepare(world));
    expect(await stateOf(world)).toEqual(afterGrant(world));
    expect(indexIn(result, ownerKey(world))).toBe(await indexOf(ownerKey(world)));
  });

  refuses(prepare, [refusedTicket, ...refusedFrozen, ...refusedChanged, refusedLockedOwner, refusedLock]);
});

const afterReturn = {
  ...{ '.node/web01': v1(mark, 'me'), '.slot/1/lock': v1({ run: 'r1' }, 'me'), '.slot/1/owner': v1(mine) },
};

describe('coming back to the own claim', () => {
  const prepare: Prepare = async (world) => comeBack(world.seat, mine, mark, await putOwner(world, earlier));

  test('takes node, lock and claim without a ticket', async () => {
    const world = await newWorld();
    const result = await done(await prepare(world));
    expect(await stateOf(world)).toEqual(afterReturn);
    expect(indexIn(result, ownerKey(world))).toBe(await indexOf(ownerKey(world)));
  });

  refuses(prepare, [
    ...refusedFrozen,
    refusedNode,
    ...refusedChanged,
    refusedLockedOwner,
    refusedLock,
    ['its session is gone', 'session', nodeKey, sessionGone],
  ]);
});

describe('taking the own lock back', () => {
  const prepare: Prepare = async (world) => takeBack(world.seat, mine, mark, await putOwner(world, mine));

  test('takes node, lock and claim, freeze or not: it is no new run', async () => {
    const world = await newWorld();
    const steps = await prepare(world);
    await both(frozen(0), frozen(2))(world);
    const result = await done(steps);
    expect(await stateOf(world)).toEqual({ ...afterReturn, '.freeze': {}, [`${world.prefix}/.freeze`]: {} });
    expect(indexIn(result, ownerKey(world))).toBe(await indexOf(ownerKey(world)));
  });

  test('with a claim that says the same as before keeps its index: Consul counts no such write', async () => {
    const world = await newWorld();
    const index = await putOwner(world, mine);
    await done(takeBack(world.seat, mine, mark, index));
    expect(await indexOf(ownerKey(world))).toBe(index);
  });

  refuses(prepare, [
    refusedNode,
    ...refusedChanged,
    refusedLockedOwner,
    refusedLock,
    ['its session is gone', 'session', nodeKey, sessionGone],
  ]);
});

describe('claiming again after the claim was deleted', () => {
  const prepare: Prepare = ({ seat }) => Promise.resolve(claimAgain(seat, mine, mark));

  test('takes node, lock and claim, freeze or not', async () => {
    const world = await newWorld();
    await frozen(0)(world);
    const result = await done(await prepare(world));
    expect(await stateOf(world)).toEqual({ ...afterReturn, '.freeze': {} });
    expect(indexIn(result, ownerKey(world))).toBe(await indexOf(ownerKey(world)));
  });

  refuses(prepare, [
    refusedNode,
    ...refusedClaimed,
    refusedLock,
    ['its session is gone', 'session', nodeKey, sessionGone],
  ]);
});

describe('giving back', () => {
  const hold = async (world: World): Promise<number> => {
    await done(takeBack(world.seat, mine, mark, await putOwner(world, mine)));
    return indexOf(ownerKey(world));
  };
  const failed: Claim = { ...mine, state: 'failed', exitCode: 1 };
  const whole: Prepare = async (world) => release(world.seat, record, await hold(world));
  const keeping: Prepare = async (world) => release(world.seat, record, await hold(world), failed);

  test('leaves nothing but the record of the run', async () => {
    const world = await newWorld();
    await done(await whole(world));
    expect(await stateOf(world)).toEqual({ '.runs/web01': v1(record) });
  });

  test('leaves the claim that goes on keeping others out', async () => {
    const world = await newWorld();
    await done(await keeping(world));
    expect(await stateOf(world)).toEqual({ '.runs/web01': v1(record), '.slot/1/owner': v1(failed) });
  });

  describe.each([
    ['everything', whole],
    ['all but the claim', keeping],
  ])('of %s', (_, prepare) => {
    refuses(prepare, [
      ['the lock is gone', 'lock', lockKey, lockGone],
      ["the lock is another session's", 'lock', lockKey, both(lockGone, lockTaken)],
      ['its session is gone', 'lock', lockKey, sessionGone],
      ...refusedChanged,
    ]);
  });
});

describe('recording a run alone', () => {
  const again = { ...record, run: 'r2', outcome: 'lost' } as const;

  test('touches nothing else, and replaces the record that was seen', async () => {
    const world = await newWorld();
    await putOwner(world, others);
    await done(recordAlone(world.keys, record, 0));
    await done(recordAlone(world.keys, again, await indexOf(world.keys.run('web01'))));
    expect(await stateOf(world)).toEqual({ '.runs/web01': v1(again), '.slot/1/owner': v1(others) });
  });

  const runKey = ({ keys }: World) => keys.run('web01');
  const recorded = (world: World) => agent.kv.put(runKey(world), encode({ ...record, run: 'r9' }));
  const seen: Prepare = async (world) => {
    await recorded(world);
    return recordAlone(world.keys, again, await indexOf(runKey(world)));
  };
  const rewritten = (world: World) => agent.kv.put(runKey(world), encode({ ...record, run: 'r10' }));
  const forgotten = (world: World) => agent.kv.delete(runKey(world));
  refuses(
    ({ keys }) => Promise.resolve(recordAlone(keys, again, 0)),
    [['another run was recorded meanwhile, the first of its node', 'node', runKey, recorded]],
  );
  refuses(seen, [
    ['another run was recorded meanwhile', 'node', runKey, rewritten],
    ['the record is gone', 'node', runKey, forgotten],
  ]);
});

describe('changing a claim', () => {
  const evicted: Claim = { ...others, state: 'evicted', by: 'ops' };
  const prepare: Prepare = async (world) =>
    changeClaim(world.keys, 1, evicted, await putOwner(world, others));

  test('changes that claim alone, whoever holds its lock', async () => {
    const world = await newWorld();
    const steps = await prepare(world);
    await lockTaken(world);
    await done(steps);
    expect(await stateOf(world)).toEqual({ '.slot/1/lock': { by: 'other' }, '.slot/1/owner': v1(evicted) });
  });

  refuses(prepare, refusedChanged);
});

describe('deleting what was seen', () => {
  const prepare: Prepare = async (world) =>
    removeSeen(world.keys.owner(1), await putOwner(world, others), 'owner');

  test('deletes that key alone', async () => {
    const world = await newWorld();
    const steps = await prepare(world);
    await lockTaken(world);
    await done(steps);
    expect(await stateOf(world)).toEqual({ '.slot/1/lock': { by: 'other' } });
  });

  test('says what stood in the way as its caller calls it', async () => {
    const { keys } = await newWorld();
    const key = keys.freezes[0] ?? '';
    expect(await run(removeSeen(key, 1, 'freeze'))).toMatchObject({ obstacle: 'freeze', key });
  });

  refuses(prepare, refusedChanged);
});

describe('clearing a claim', () => {
  const prepare: Prepare = async (world) =>
    clearClaim({ keys: world.keys, slot: 1 }, await putOwner(world, others));

  test('deletes a claim that no lock stands behind', async () => {
    const world = await newWorld();
    await done(await prepare(world));
    expect(await stateOf(world)).toEqual({});
  });

  refuses(prepare, [
    ['a session holds the lock', 'lock', lockKey, lockTaken],
    [
      'there is a lock key that no session holds',
      'lock',
      lockKey,
      ({ keys }) => agent.kv.put(keys.lock(1), ''),
    ],
    ...refusedChanged,
  ]);
});
