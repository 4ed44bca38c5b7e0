// The transactions around a command, on a real agent: the last before it, and the one that records it as good.
import { describe, expect, test } from 'vitest';
import { changeStates, finish, setStates, start, stillHold, takeBack } from '../../src/lock/transactions.ts';
import type { HeldSeat, SeenKey, StateChange } from '../../src/lock/transactions.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import { stateKey } from '../../src/state/path.ts';
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
} from './transactions-world.ts';
import type { Prepare, Refusal, World } from './transactions-world.ts';

/** The run holds slot 1 of this group, and of one after it. */
async function hold(world: World): Promise<readonly HeldSeat[]> {
  await done(takeBack(world.seat, mine, mark, await putOwner(world, mine)));
  const keys = groupKeys(world.prefix, 'prod/xen');
  const seat = { ...world.seat, keys };
  await agent.kv.put(keys.owner(1), encode(mine));
  await done(takeBack(seat, mine, mark, await indexOf(keys.owner(1))));
  return [
    { seat: world.seat, index: await indexOf(ownerKey(world)) },
    { seat, index: await indexOf(keys.owner(1)) },
  ];
}

const secondOwner = ({ prefix }: World) => groupKeys(prefix, 'prod/xen').owner(1);
const secondLock = ({ prefix }: World) => groupKeys(prefix, 'prod/xen').lock(1);
const state = ({ prefix }: World, path: string) => stateKey(prefix, path);
const put = (path: string, value: string) => (world: World) => agent.kv.put(state(world, path), value);
const remove = (path: string) => (world: World) => agent.kv.delete(state(world, path));

/** What is as bad in the second group as in the first. */
const secondChanged: Refusal[] = [
  ['the lock of the second group is gone', 'lock', secondLock, (world) => agent.kv.delete(secondLock(world))],
  [
    'the claim of the second group has changed',
    'owner',
    secondOwner,
    (world) => agent.kv.put(secondOwner(world), encode({ ...mine, state: 'evicted' })),
  ],
];

const document = JSON.stringify({ v: 1, value: '1' });

describe('the start of a command', () => {
  const conditions = async (world: World): Promise<readonly SeenKey[]> => [
    { key: state(world, 'db/schema'), index: await indexOf(state(world, 'db/schema')) },
    { key: state(world, 'db/locked'), index: 0 },
  ];
  const prepare: Prepare = async (world) => {
    await put('db/schema', 'old')(world);
    const held = await hold(world);
    const during = [{ key: state(world, 'web/mode'), value: document }];
    return start(held, [...stillHold(await conditions(world)), ...setStates(during)]);
  };

  test('sets the states of --during, and changes nothing else', async () => {
    const world = await newWorld();
    const steps = await prepare(world);
    const before = await statesOf(world);
    const result = await done(steps);
    const key = state(world, 'web/mode');
    expect(await statesOf(world)).toEqual({ ...before, [key]: document });
    const index = await indexOf(key);
    expect(indexIn(result, key)).toBe(index);
    // Sent again, because its answer was lost, it has no second effect.
    await done(steps);
    expect(await indexOf(key)).toBe(index);
  });

  refuses(prepare, [
    ['the lock is gone', 'lock', lockKey, lockGone],
    ["the lock is another session's", 'lock', lockKey, both(lockGone, lockTaken)],
    ['its session is gone', 'lock', lockKey, sessionGone],
    ...refusedChanged,
    ...secondChanged,
    [
      'a state that a condition rests on has changed',
      'condition',
      (w) => state(w, 'db/schema'),
      put('db/schema', '2'),
    ],
    [
      'a state that a condition rests on is gone',
      'condition',
      (w) => state(w, 'db/schema'),
      remove('db/schema'),
    ],
    ['a state that was not there is set', 'condition', (w) => state(w, 'db/locked'), put('db/locked', '1')],
  ]);
});

describe('the end of a run that publishes', () => {
  const changes = async (world: World): Promise<readonly StateChange[]> => [
    { kind: 'set', key: state(world, 'web/version'), value: document },
    { kind: 'same', key: state(world, 'web/same'), index: await indexOf(state(world, 'web/same')) },
    { kind: 'delete', key: state(world, 'web/mode'), index: await indexOf(state(world, 'web/mode')) },
  ];
  const prepare: Prepare = async (world) => {
    await put('web/same', 'same')(world);
    await put('web/mode', 'busy')(world);
    const held = await hold(world);
    return finish(
      held.map((one) => ({ ...one, record })),
      changeStates(await changes(world)),
    );
  };

  test('records the run in all its groups, releases all slots and sets its states, at one index', async () => {
    const world = await newWorld();
    const steps = await prepare(world);
    await done(steps);
    const keys = groupKeys(world.prefix, 'prod/xen');
    const [one, two] = [world.keys.run('web01'), keys.run('web01')];
    expect(await statesOf(world)).toEqual({
      ...{ [one]: encode(record), [two]: encode(record) },
      ...{ [state(world, 'web/version')]: document, [state(world, 'web/same')]: 'same' },
    });
    const index = await indexOf(one);
    expect([await indexOf(two), await indexOf(state(world, 'web/version'))]).toEqual([index, index]);
  });

  refuses(prepare, [
    ['the lock is gone', 'lock', lockKey, lockGone],
    ['its session is gone', 'lock', lockKey, sessionGone],
    ...refusedChanged,
    ...secondChanged,
    ['a state that was the same has changed', 'state', (w) => state(w, 'web/same'), put('web/same', 'x')],
    ['a state of --during has changed', 'state', (w) => state(w, 'web/mode'), put('web/mode', 'x')],
  ]);
});

/** Every key below the prefix with what it holds, as it is stored. */
const statesOf = async ({ prefix }: World): Promise<Record<string, string>> =>
  Object.fromEntries((await agent.kv.tree(`${prefix}/`)).map(({ Key, Value }) => [Key, Value]));
