// The transactions of a job on a real agent: what each does, and that each of its checks refuses it.
import { describe, expect, test } from 'vitest';
import { encodeSpec, encodeStage } from '../../src/jobs/records.ts';
import { firstTally, ready, stopped } from '../../src/jobs/stage.ts';
import {
  accept,
  collect,
  create,
  drop,
  dropOrphan,
  dropPointers,
  fill,
  final,
  late,
  lost,
  markReady,
  note,
  reboot,
  startTarget,
  stop,
  tail,
} from '../../src/jobs/transactions.ts';
import type { End, SeenTarget } from '../../src/jobs/transactions.ts';
import { finish, start } from '../../src/lock/transactions.ts';
import type { RunStep } from '../../src/lock/transactions.ts';
import type { Claim } from '../../src/lock/records.ts';
import { at, lists, nowMs, place as placeIn, seenJob, seenTarget, spec } from '../support/jobs.ts';
import type { Kept } from '../support/jobs.ts';
import {
  agent,
  done,
  indexOf,
  lockGone,
  lockKey,
  mark,
  mine,
  newWorld,
  ownerKey,
  putOwner,
  record,
  refusedChanged,
  refuses,
  run,
  sessionGone,
} from './transactions-world.ts';
import type { Prepare, Refusal, World } from './transactions-world.ts';
import { takeBack } from '../../src/lock/transactions.ts';

const place = ({ prefix }: World) => placeIn(prefix);
const good: End = { state: 'good', endedAt: at, exitCode: 0 };
const ended = { end: good, nowMs, isNode: true } as const;

/** What stands now below the world's prefix, read once. */
async function look(world: World): Promise<(key: string) => Kept | undefined> {
  const pairs = await agent.kv.tree(`${world.prefix}/`);
  return (key) => {
    const pair = pairs.find(({ Key }) => Key === key);
    return pair && { value: pair.Value, index: pair.ModifyIndex };
  };
}
const jobOf = async (world: World) => seenJob(place(world), await look(world));
const targetOf = async (world: World): Promise<SeenTarget> => seenTarget(place(world), await look(world));

const creates: Prepare = (world) =>
  Promise.resolve(create({ ...place(world), spec, tally: firstTally(spec, 1) }));
const created = async (world: World) => done(await creates(world));
const filled = async (world: World) => {
  await created(world);
  for (const list of lists) await done(fill(await jobOf(world), list));
};
const opened = async (world: World) => {
  await filled(world);
  const job = await jobOf(world);
  await done(markReady(job, ready(job.stage.value, job.tally.value, { rules: spec, nowMs })));
};
const accepted = async (world: World) => {
  await opened(world);
  await done(accept(await targetOf(world), at));
};
const started = async (world: World) => {
  await accepted(world);
  await done(startTarget(await targetOf(world), { run: 'r1', bootId: 'b', at }));
};
const cancels = async (world: World): Promise<RunStep[]> => {
  const job = await jobOf(world);
  const after = stopped(job.stage.value, { why: 'cancelled' }, nowMs);
  return after ? stop(job, after) : [];
};
const cancel = async (world: World) => done(await cancels(world));
const after =
  (before: (world: World) => Promise<unknown>, steps: (target: SeenTarget) => RunStep[]): Prepare =>
  async (world) => {
    await before(world);
    return steps(await targetOf(world));
  };

const stageKey = (world: World) => place(world).keys.stage;
const tallyKey = (world: World) => place(world).keys.tally;
const specKey = (world: World) => place(world).requests.spec('deploy-1');
const nodeKey = (world: World) => place(world).keys.node('web01');
const pointerKey = (world: World) => place(world).requests.pointer('web01', 'deploy-1');
const listKey = (world: World) => place(world).requests.targets('deploy-1', 0);
const write = (key: (world: World) => string) => (world: World) => agent.kv.put(key(world), '{}');
const remove = (key: (world: World) => string) => (world: World) => agent.kv.delete(key(world));

const spoilt = (what: string, means: Refusal[1], key: (world: World) => string): Refusal[] => [
  [`${what} has changed`, means, key, write(key)],
  [`${what} is gone`, means, key, remove(key)],
];
const stageSpoilt = spoilt('its stage', 'stage', stageKey);
const specSpoilt = spoilt('what is asked', 'spec', specKey);
const tallyGone = spoilt('its tally', 'tally', tallyKey);
const targetSpoilt = spoilt('the document', 'target', nodeKey);
const cancelled: Refusal = ['the job was stopped', 'stage', stageKey, cancel];

describe('a job that is created', () => {
  refuses(creates, [
    ['there is such a request', 'spec', specKey, write(specKey)],
    ['there is such a stage', 'stage', stageKey, write(stageKey)],
    ['there is such a tally', 'tally', tallyKey, write(tallyKey)],
    ['it was created before, with no answer', 'spec', specKey, created],
  ]);
});

describe('a retry', () => {
  const oldKey = ({ prefix }: World) => placeIn(prefix, 'deploy-0').keys.stage;
  const retries: Prepare = async (world) => {
    const stage = { rev: 2, kind: 'stopped', why: 'failures', at } as const;
    await agent.kv.put(oldKey(world), encodeStage(stage));
    const retried = { key: oldKey(world), index: await indexOf(oldKey(world)) };
    return create({ ...place(world), spec, tally: firstTally(spec, 0), retried });
  };

  test('begins while the job before is as it was', async () => {
    await done(await retries(await newWorld()));
  });

  refuses(retries, spoilt('the job before', 'stage', oldKey));
});

describe('a list of targets', () => {
  refuses(
    after(created, (job) => fill(job, lists[0])),
    [...stageSpoilt, ...specSpoilt, cancelled, ['there is such a list', 'spec', listKey, write(listKey)]],
  );

  test('is written with its pointers, and counted', async () => {
    const world = await newWorld();
    await filled(world);
    expect((await jobOf(world)).spec.value.filled).toBe(2);
    const names = (await agent.kv.tree(place(world).requests.prefix)).map(({ Key }) => Key);
    expect(names.filter((key) => key.includes('/inbox/'))).toHaveLength(3);
  });
});

describe('a job that is ready', () => {
  const readies = after(filled, (job) =>
    markReady(job, ready(job.stage.value, job.tally.value, { rules: spec, nowMs })),
  );
  refuses(readies, [...specSpoilt, ...tallyGone, ...stageSpoilt, cancelled]);
});

describe('a stop', () => {
  const stops: Prepare = async (world) => {
    await opened(world);
    return cancels(world);
  };
  refuses(stops, [...stageSpoilt, cancelled]);
});

describe('a target that accepts', () => {
  refuses(
    after(opened, (target) => accept(target, at)),
    [...stageSpoilt, cancelled, ['there is a document', 'target', nodeKey, write(nodeKey)]],
  );
});

describe('a target that says what it waits for', () => {
  refuses(
    after(accepted, (target) => note(target, 'its turn')),
    [...stageSpoilt, ...targetSpoilt],
  );
});

/** The run has its slot, too. */
const holding = async (world: World) => {
  await done(takeBack(world.seat, mine, mark, await putOwner(world, mine)));
  return [{ seat: world.seat, index: await indexOf(ownerKey(world)) }];
};

describe('the start of a target, with that of its command', () => {
  const starts: Prepare = async (world) => {
    await accepted(world);
    const held = await holding(world);
    return start(held, startTarget(await targetOf(world), { run: 'r1', bootId: 'b', at }));
  };

  refuses(starts, [
    ...stageSpoilt,
    cancelled,
    ...specSpoilt,
    ...targetSpoilt,
    ...refusedChanged,
    ['the lock is gone', 'lock', lockKey, lockGone],
    ['its session is gone', 'lock', lockKey, sessionGone],
  ]);

  test('is not done twice', async () => {
    const world = await newWorld();
    const steps = await starts(world);
    await done(steps);
    expect(await run(steps)).toMatchObject({ kind: 'refused', obstacle: 'target' });
  });
});

describe('the end of a target', () => {
  const ends = after(started, (target) => final(target, ended));
  const checks = [...stageSpoilt, cancelled, ...targetSpoilt, ...tallyGone];
  refuses(ends, checks);

  test('opens the next stage, counts it, and removes pointer and output at one index', async () => {
    const world = await newWorld();
    const steps = await ends(world);
    const { keys } = place(world);
    await done(tail(await targetOf(world), '{}'));
    await done(steps);
    const job = await jobOf(world);
    expect(job.stage.value).toMatchObject({ kind: 'open', stage: 1 });
    expect(job.tally.value.states).toEqual({ offline: 1, good: 1 });
    expect([job.tally.index, await indexOf(nodeKey(world))]).toEqual([job.stage.index, job.stage.index]);
    expect([await indexOf(pointerKey(world)), await indexOf(keys.tail('web01'))]).toEqual([0, 0]);
    expect(await run(steps)).toMatchObject({ kind: 'refused', obstacle: 'stage' });
  });

  describe('that leaves the stage as it is', () => {
    const first: Prepare = async (world) => {
      await started(world);
      const target = await targetOf(world);
      const rules = { ...spec, stages: [2, 2] };
      return final({ ...target, spec: { ...target.spec, value: rules } }, ended);
    };
    refuses(first, checks);
  });

  describe('with that of its run', () => {
    const whole =
      (kept?: Claim): Prepare =>
      async (world) => {
        await started(world);
        const held = await holding(world);
        const all = held.map((one) => ({ ...one, record, kept }));
        return finish(all, final(await targetOf(world), ended));
      };
    refuses(whole(), [
      cancelled,
      ...targetSpoilt,
      ...refusedChanged,
      ['its session is gone', 'lock', lockKey, sessionGone],
    ]);
    refuses(whole({ ...mine, state: 'failed' }), [
      cancelled,
      ...targetSpoilt,
      ['the lock is gone', 'lock', lockKey, lockGone],
    ]);
  });

  test('that comes late is noted, and no more', async () => {
    const world = await newWorld();
    await done(await ends(world));
    const steps = late(await targetOf(world), 'failed');
    await done(steps);
    expect((await targetOf(world)).document?.value).toMatchObject({ state: 'good', late: 'failed' });
    expect(await run(steps)).toMatchObject({ kind: 'refused', obstacle: 'target' });
  });
});

describe('a reboot', () => {
  refuses(
    after(started, (target) => reboot(target, { bootId: 'b' })),
    targetSpoilt,
  );
});

describe('a run that is lost', () => {
  const loses: Prepare = async (world) => {
    await started(world);
    const owner = { key: ownerKey(world), index: await putOwner(world, mine) };
    return lost(await targetOf(world), [owner], { end: { state: 'lost', endedAt: at }, nowMs });
  };
  refuses(loses, [...refusedChanged, cancelled, ...targetSpoilt, ...tallyGone]);

  test('leaves its pointer to its node', async () => {
    const world = await newWorld();
    await done(await loses(world));
    expect(await indexOf(pointerKey(world))).not.toBe(0);
  });
});

describe('live output', () => {
  refuses(
    after(started, (target) => tail(target, '{}')),
    targetSpoilt,
  );
});

describe('a pointer', () => {
  const ends = async (world: World) => {
    await started(world);
    await done(final(await targetOf(world), { end: good, nowMs }));
  };
  const dropping =
    (before: (world: World) => Promise<unknown>, because: 'document' | 'stage'): Prepare =>
    async (world) => {
      await before(world);
      return drop(await targetOf(world), because, await indexOf(pointerKey(world)));
    };
  const setAnew: Refusal = ['it was set anew', 'target', pointerKey, write(pointerKey)];
  refuses(dropping(ends, 'document'), [...targetSpoilt, setAnew]);
  refuses(
    dropping(async (world) => {
      await opened(world);
      await cancel(world);
    }, 'stage'),
    [...stageSpoilt, setAnew],
  );
  refuses(
    async (world) => {
      await opened(world);
      return dropOrphan({ key: pointerKey(world), index: await indexOf(pointerKey(world)) });
    },
    [setAnew],
  );
});

describe('a job that is removed', () => {
  const over = async (world: World) => {
    await opened(world);
    await cancel(world);
  };
  refuses(after(over, collect), stageSpoilt);
  refuses(
    after(over, (job) => dropPointers(job, ['web01'])),
    stageSpoilt,
  );

  test('leaves nothing, and its neighbour alone', async () => {
    const world = await newWorld();
    await over(world);
    const neighbour = placeIn(world.prefix, 'deploy-11').requests.spec('deploy-11');
    await agent.kv.put(neighbour, encodeSpec(spec));
    await done(dropPointers(await jobOf(world), ['web01', 'web02', 'web03']));
    await done(collect(await jobOf(world)));
    expect((await agent.kv.tree(`${world.prefix}/`)).map(({ Key }) => Key)).toEqual([neighbour]);
  });
});
