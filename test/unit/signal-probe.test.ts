// Whether a signal went to the whole group: the probe alone, told by hand, on a clock that the test moves.
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { kill } from 'node:process';
import { expect, onTestFinished, test } from 'vitest';
import { startSignalProbe } from '../../src/process/signal-probe.ts';
import type { ProbeOptions } from '../../src/process/signal-probe.ts';
import { eventually } from '../support/processes.ts';
import { stage } from '../support/stage.ts';

function start(options?: ProbeOptions) {
  let aheadMs = 0;
  let isStopped = false;
  const monotonicMs = () => performance.now() + aheadMs;
  const sleep = (ms: number, { signal }: { signal: AbortSignal }) =>
    new Promise<void>((resolve, reject) => {
      if (!isStopped) setTimeout(resolve, ms);
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  const probe = startSignalProbe({ now: () => 0, monotonicMs, sleep }, options);
  onTestFinished(() => probe.stop());
  const tell = (signal: NodeJS.Signals) => kill(probe.pid() ?? 0, signal);
  return {
    ...{ probe, tell },
    pass: (ms: number) => void (aheadMs += ms),
    /** From now on no pause ends by itself. */
    stopClock: () => void (isStopped = true),
  };
}

/** It has its traps by then. */
async function ready(probe: ReturnType<typeof start>['probe']): Promise<void> {
  expect(await probe.groupHad('SIGHUP')).toBe(false);
}

test('a signal that reaches the probe a little later than runlock went to the group', async () => {
  const { probe, tell, stopClock } = start();
  await ready(probe);
  stopClock();
  const had = probe.groupHad('SIGINT');
  // As long as another probe, beside it, takes to know that there was no signal.
  await ready(start().probe);
  tell('SIGINT');
  expect(await had).toBe(true);
});

test('two at once are both answered', async () => {
  const { probe, tell, stopClock } = start();
  await ready(probe);
  stopClock();
  const had = [probe.groupHad('SIGINT'), probe.groupHad('SIGTERM')];
  tell('SIGINT');
  tell('SIGTERM');
  expect(await Promise.all(had)).toEqual([true, true]);
});

test('what the probe heard answers for one signal to runlock, not for the next', async () => {
  const { probe, tell } = start();
  await ready(probe);
  tell('SIGUSR1');
  expect(await probe.groupHad('SIGUSR1')).toBe(true);
  expect(await probe.groupHad('SIGUSR1')).toBe(false);
});

test('what the probe heard long ago answers for no signal now', async () => {
  const { probe, tell, pass } = start();
  await ready(probe);
  tell('SIGUSR1');
  // Its word for USR1 is there before its answer to this.
  await ready(probe);
  pass(2_000);
  expect(await probe.groupHad('SIGUSR1')).toBe(false);
});

test('a probe that somebody ended is replaced', async () => {
  const { probe, tell } = start();
  await ready(probe);
  const before = probe.pid();
  tell('SIGKILL');
  await eventually(() => expect(probe.pid()).not.toBe(before));
  await ready(probe);
  tell('SIGUSR1');
  expect(await probe.groupHad('SIGUSR1')).toBe(true);
});

test('its command line does not name runlock: who ends all that do leaves it alone', async () => {
  const { probe } = start();
  await ready(probe);
  expect(readFileSync(`/proc/${probe.pid()}/cmdline`, 'utf8')).not.toContain('runlock');
});

test.each<NodeJS.Signals>(['SIGTSTP', 'SIGTTIN'])('%s does not stop it', async (signal) => {
  const { probe, tell } = start();
  await ready(probe);
  tell(signal);
  expect(await probe.groupHad(signal)).toBe(true);
  await ready(probe);
});

test('it moves to the cgroup it is told, its replacement too; one that is not there is no fault', async () => {
  const { folder, lines } = stage();
  const home = join(folder, 'cgroup.procs');
  const { probe, tell } = start({ home });
  await ready(probe);
  expect(lines('cgroup.procs')).toEqual(['0']);
  rmSync(home);
  const before = probe.pid();
  tell('SIGKILL');
  await eventually(() => expect(probe.pid()).not.toBe(before));
  await ready(probe);
  expect(lines('cgroup.procs')).toEqual(['0']);
  await ready(start({ home: '/nowhere/cgroup.procs' }).probe);
});
