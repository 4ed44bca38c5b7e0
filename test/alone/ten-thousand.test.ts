// How fast a crowd dies: measured, so nothing else of the tests runs at the same time.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

import { useAgent } from '../support/use-agent.ts';
import { hide } from '../support/hiding.ts';
import { makeCell, whyNoCell } from '../support/kernel-count.ts';
import { eventually, guardOf, isAlive, untilGone } from '../support/processes.ts';

const agent = useAgent();

const why = whyNoCell;
const LONG = { timeout: 240_000 };

describe.skipIf(why !== undefined)(`in a cgroup${why === undefined ? '' : ` (left out: ${why})`}`, () => {
  test('SIGKILL of runlock with 10,000 children: all are gone within two seconds', LONG, async () => {
    const counted = makeCell({ nests: true });
    const { run, ready } = hide(agent, 10_000, counted);
    await ready();
    const guard = guardOf(run.pid);
    expect(counted.pids().length).toBeGreaterThan(10_000);
    run.signal('SIGKILL');
    const killedMs = performance.now();
    // The guard's own programs are no children of the command. To list thousands takes time that the dying need: first
    // it is asked whether anybody is left in the run's cgroup.
    const left = () => othersThan(guard, counted.pids());
    await eventually(() => expect(hasPopulated(counted.folder)).toBe(false), 10_000);
    await eventually(() => expect(left()).toEqual([]), 10_000);
    expect(performance.now() - killedMs).toBeLessThan(2_000);
    await untilGone(guard);
    expect(counted.pids()).toEqual([]);
    expect(readdirSync(counted.folder).filter((name) => name.startsWith('runlock-'))).toEqual([]);
  });
});

function hasPopulated(folder: string): boolean {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .some(({ name }) => /^populated 1$/m.test(textOf(join(folder, name, 'cgroup.events'))));
}

function othersThan(guard: number, pids: number[]): number[] {
  const isOfGuard = (pid: number): boolean => {
    if (pid === guard) return true;
    const [, parent = '0'] = /^PPid:\s*(\d+)$/m.exec(textOf(`/proc/${pid}/status`)) ?? [];
    return parent !== '0' && isOfGuard(Number(parent));
  };
  return pids.filter((pid) => !isOfGuard(pid) && isAlive(pid));
}

/** Nothing, if it is gone by now. */
function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
