// Whether a signal went to the whole group: the canary alone, told by hand, on a clock that the test moves.
import { kill } from 'node:process';
import { expect, onTestFinished, test } from 'vitest';
import { startCanary } from '../../src/canary.ts';
import { eventually } from '../support/processes.ts';

function hatch() {
  let aheadMs = 0;
  let isStopped = false;
  const monotonicMs = () => performance.now() + aheadMs;
  const sleep = (ms: number, { signal }: { signal: AbortSignal }) =>
    new Promise<void>((resolve, reject) => {
      if (!isStopped) setTimeout(resolve, ms);
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  const canary = startCanary({ now: () => 0, monotonicMs, sleep });
  onTestFinished(() => canary.stop());
  const tell = (signal: NodeJS.Signals) => kill(canary.pid() ?? 0, signal);
  return {
    ...{ canary, tell },
    pass: (ms: number) => void (aheadMs += ms),
    /** From now on no pause ends by itself. */
    stopClock: () => void (isStopped = true),
  };
}

/** It has its traps by then. */
async function ready(canary: ReturnType<typeof hatch>['canary']): Promise<void> {
  expect(await canary.groupHad('SIGHUP')).toBe(false);
}

test('a signal that reaches the canary a little later than runlock went to the group', async () => {
  const { canary, tell, stopClock } = hatch();
  await ready(canary);
  stopClock();
  const had = canary.groupHad('SIGINT');
  // As long as another canary, beside it, takes to know that there was no signal.
  await ready(hatch().canary);
  tell('SIGINT');
  expect(await had).toBe(true);
});

test('two at once are both answered', async () => {
  const { canary, tell, stopClock } = hatch();
  await ready(canary);
  stopClock();
  const had = [canary.groupHad('SIGINT'), canary.groupHad('SIGTERM')];
  tell('SIGINT');
  tell('SIGTERM');
  expect(await Promise.all(had)).toEqual([true, true]);
});

test('what the canary heard answers for one signal to runlock, not for the next', async () => {
  const { canary, tell } = hatch();
  await ready(canary);
  tell('SIGUSR1');
  expect(await canary.groupHad('SIGUSR1')).toBe(true);
  expect(await canary.groupHad('SIGUSR1')).toBe(false);
});

test('what the canary heard long ago answers for no signal now', async () => {
  const { canary, tell, pass } = hatch();
  await ready(canary);
  tell('SIGUSR1');
  // Its word for USR1 is there before its answer to this.
  await ready(canary);
  pass(2_000);
  expect(await canary.groupHad('SIGUSR1')).toBe(false);
});

test('a canary that somebody ended is replaced', async () => {
  const { canary, tell } = hatch();
  await ready(canary);
  const before = canary.pid();
  tell('SIGKILL');
  await eventually(() => expect(canary.pid()).not.toBe(before));
  await ready(canary);
  tell('SIGUSR1');
  expect(await canary.groupHad('SIGUSR1')).toBe(true);
});
