// The transactions of the two halves, `acquire` and `release`, on a real agent.
import { describe, expect, test } from 'vitest';
import type { Claim } from '../../src/lock/records.ts';
import { endHeld, keep, takeBack } from '../../src/lock/transactions.ts';
import {
  agent,
  both,
  done,
  indexIn,
  indexOf,
  lockGone,
  lockKey,
  lockTaken,
  mark,
  mine,
  newWorld,
  ownerKey,
  putOwner,
  record,
  refusedChanged,
  refuses,
  sessionGone,
  stateOf,
  v1,
} from './transactions-world.ts';
import type { Prepare } from './transactions-world.ts';

const held: Claim = { ...mine, state: 'held', waitedMs: 5 };
const failed: Claim = { ...mine, state: 'failed', exitCode: 1 };

describe('keeping what was granted', () => {
  const prepare: Prepare = async (world) => {
    await done(takeBack(world.seat, mine, mark, await putOwner(world, mine)));
    return keep(world.seat, held, await indexOf(ownerKey(world)));
  };

  test('leaves the claim alone: no lock, no mark, and the index that the claim has then', async () => {
    const world = await newWorld();
    const result = await done(await prepare(world));
    expect(await stateOf(world)).toEqual({ '.slot/1/owner': v1(held) });
    expect(indexIn(result, ownerKey(world))).toBe(await indexOf(ownerKey(world)));
  });

  refuses(prepare, [
    ['the lock is gone', 'lock', lockKey, lockGone],
    ["the lock is another session's", 'lock', lockKey, both(lockGone, lockTaken)],
    ['its session is gone', 'lock', lockKey, sessionGone],
    ...refusedChanged,
  ]);
});

describe('ending what is held', () => {
  const whole: Prepare = async (world) =>
    endHeld({ keys: world.keys, slot: 1 }, record, await putOwner(world, held));
  const keeping: Prepare = async (world) =>
    endHeld({ keys: world.keys, slot: 1 }, record, await putOwner(world, held), failed);

  test('leaves nothing but the record', async () => {
    const world = await newWorld();
    await done(await whole(world));
    expect(await stateOf(world)).toEqual({ '.runs/web01': v1(record) });
  });

  test('leaves the claim that goes on keeping others out', async () => {
    const world = await newWorld();
    await done(await keeping(world));
    expect(await stateOf(world)).toEqual({ '.runs/web01': v1(record), '.slot/1/owner': v1(failed) });
  });

  test('takes a lock key with it that no session holds', async () => {
    const world = await newWorld();
    await agent.kv.put(world.keys.lock(1), '');
    const vanished = { keys: world.keys, slot: 1, strayLock: await indexOf(lockKey(world)) };
    await done(endHeld(vanished, record, await putOwner(world, held)));
    expect(await stateOf(world)).toEqual({ '.runs/web01': v1(record) });
  });

  describe.each([
    ['everything', whole],
    ['all but the claim', keeping],
  ])('%s', (_, prepare) => {
    refuses(prepare, [['a session holds the lock', 'lock', lockKey, lockTaken], ...refusedChanged]);
  });
});
