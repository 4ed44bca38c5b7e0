// Ending a tree, look by look: against looks that answer from a script, on a clock that its sleeps move.
import { spawn } from 'node:child_process';
import { expect, onTestFinished, test } from 'vitest';
import type { Clock } from '../../src/deps.ts';
import { killer } from '../../src/kill.ts';
import { startTime } from '../../src/tree.ts';
import type { Member } from '../../src/tree.ts';
import { end, isAlive, untilGone } from '../support/processes.ts';

/** No process has this pid. */
const GHOST: Member = { pid: 2 ** 30, startTime: '1', name: 'x', state: 'S', parent: 1, group: 2 ** 30 };

type Look = readonly Member[] | Error;

/** The tree shows each of these in turn, and then nobody. */
function tree(looks: readonly Look[], { ended = Promise.resolve() }: { ended?: Promise<unknown> } = {}) {
  let taken = 0;
  let nowMs = 0;
  const lookedMs: number[] = [];
  const members = () => {
    lookedMs.push(nowMs);
    const look = looks[taken++] ?? [];
    if (look instanceof Error) throw look;
    return [...look];
  };
  const clock: Clock = {
    ...{ now: () => nowMs, monotonicMs: () => nowMs },
    sleep: (ms, { signal }) => {
      if (!signal.aborted) nowMs += ms;
      return Promise.resolve();
    },
  };
  const kill = killer({ tree: { members }, group: undefined, ended, clock });
  return { kill, taken: () => taken, lookedMs };
}

test('nobody is left when two looks in a row find nobody: who forks and ends during one hides its child from it', async () => {
  const { kill, taken } = tree([[GHOST], [], [GHOST], []]);
  await kill({ killAfterMs: 1_000 });
  expect(taken()).toBe(5);
});

test('a look that fails proves nothing, and another one is taken', async () => {
  const { kill, taken } = tree([new Error('EMFILE'), new Error('EMFILE'), [GHOST]]);
  await kill({ killAfterMs: 1_000 });
  expect(taken()).toBe(5);
});

test('it is over when the end of the command itself is known, too', async () => {
  let tellEnd = (): void => undefined;
  const { kill } = tree([], { ended: new Promise<void>((resolve) => (tellEnd = resolve)) });
  let isOver = false;
  const killing = kill({ killAfterMs: 1_000 }).then(() => (isOver = true));
  for (let n = 0; n < 20; n++) await Promise.resolve();
  expect(isOver).toBe(false);
  tellEnd();
  await killing;
});

/** A process of this test that ends of KILL alone. */
async function stubborn(): Promise<Member> {
  const child = spawn('sh', ['-c', 'trap "" TERM; echo; while :; do sleep 60; done'], {
    stdio: ['ignore', 'pipe', 'ignore'],
    detached: true,
  });
  const { pid = 0 } = child;
  onTestFinished(() => end(-pid));
  await new Promise((resolve) => child.stdout.once('data', resolve));
  return { ...GHOST, pid, startTime: startTime(pid) ?? '' };
}

test('KILL comes at the limit, not a pause later, and a longer limit that is asked for later changes nothing', async () => {
  const member = await stubborn();
  // Long enough for every pause to have grown, and no multiple of one.
  const { kill, lookedMs } = tree(new Array<Look>(40).fill([member]));
  const killing = kill({ killAfterMs: 5_001 });
  void kill({ killAfterMs: 60_000 });
  await killing;
  await untilGone(member.pid, 3_000);
  expect(lookedMs).toContain(5_001);
});

test('a process that has the pid of one that is gone gets no signal', async () => {
  const member = await stubborn();
  const { kill } = tree(new Array<Look>(20).fill([{ ...member, startTime: '1' }]));
  await kill({ killAfterMs: 0 });
  expect(isAlive(member.pid)).toBe(true);
});
