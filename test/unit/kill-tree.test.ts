// Ending a tree, look by look: against looks that answer from a script, on a clock that its sleeps move.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import type { Clock } from '../../src/platform/deps.ts';
import { killer, withoutInner } from '../../src/process/kill-tree.ts';
import { startTime } from '../../src/process/process-tree.ts';
import type { Member } from '../../src/process/process-tree.ts';
import { end, isAlive, untilGone } from '../support/processes.ts';

/** No process has this pid. */
const GHOST: Member = { pid: 2 ** 30, startTime: '1', name: 'x', state: 'S', parent: 1, group: 2 ** 30 };

type Look = readonly Member[] | Error;

/** The tree shows each of these in turn, and then nobody; or what it is asked for. */
function tree(
  looks: readonly Look[] | (() => Look),
  { ended = Promise.resolve(), inner = () => [] }: { ended?: Promise<unknown>; inner?: () => Member[] } = {},
) {
  let taken = 0;
  let nowMs = 0;
  const lookedMs: number[] = [];
  const members = () => {
    lookedMs.push(nowMs);
    const look = typeof looks === 'function' ? looks() : (looks[taken++] ?? []);
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
  const kill = killer({ tree: { members }, group: undefined, ended, clock, inner });
  return { kill, taken: () => taken, lookedMs, nowMs: () => nowMs };
}

test('nobody is left when two looks in a row find nobody: one look can miss a child of who forks', async () => {
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

test('KILL comes at the limit, not a pause later; a longer limit asked for later changes nothing', async () => {
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

test('a runlock inside dies last: at the limit all others, three seconds later that too', async () => {
  const [other, runlock] = [await stubborn(), await stubborn()];
  let otherGoneMs: number | undefined;
  const look = (): Look => {
    // Time stands still until who was killed is gone.
    if (nowMs() > 1_000) while (isAlive(other.pid)) readFileSync('/proc/uptime');
    const left = [other, runlock].filter(({ pid }) => isAlive(pid));
    if (!left.includes(other)) otherGoneMs ??= nowMs();
    return left;
  };
  const { kill, nowMs } = tree(look, { inner: () => [runlock] });
  await kill({ killAfterMs: 1_000 });
  expect(otherGoneMs).toBeLessThan(4_000);
  expect(nowMs()).toBeGreaterThanOrEqual(4_000);
});

test('what is below a runlock inside is left to it, whatever it is told', () => {
  const member = (pid: number, parent: number): Member => ({ ...GHOST, pid, parent });
  const [command, runlock, guard, inside, deeper, beside] = [
    ...[member(10, 1), member(11, 10), member(12, 11)],
    ...[member(13, 11), member(14, 13), member(15, 10)],
  ];
  const all = [command, runlock, guard, inside, deeper, beside].filter((one) => one !== undefined);
  expect(withoutInner(all, []).map(({ pid }) => pid)).toEqual([10, 11, 12, 13, 14, 15]);
  expect(withoutInner(all, [{ pid: 11, startTime: '1' }]).map(({ pid }) => pid)).toEqual([10, 11, 15]);
  // Its pid is another process's by now.
  expect(withoutInner(all, [{ pid: 11, startTime: '2' }])).toHaveLength(6);
});
