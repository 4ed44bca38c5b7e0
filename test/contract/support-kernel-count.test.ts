// The kernel's count of a test's processes: it must see who hides from the product, and must not see who is gone.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { makeCell, whyNoCell } from '../support/kernel-count.ts';
import type { Cell } from '../support/kernel-count.ts';
import { end, eventually } from '../support/processes.ts';

function startIn(cell: Cell, script: string): number {
  const [command, ...args] = [...cell.through, 'sh', '-c', script];
  const { pid = 0 } = spawn(command, args, { stdio: 'ignore' });
  return pid;
}

const counts = (cell: Cell, count: number) => eventually(() => expect(cell.pids()).toHaveLength(count));

describe.skipIf(whyNoCell !== undefined)(
  `counting by a cgroup of the test's own${whyNoCell === undefined ? '' : ` (skipped: ${whyNoCell})`}`,
  () => {
    test('who is started inside is counted, whatever its environment, session, parents and name', async () => {
      const cell = makeCell({ nests: true });
      const hide = [
        'env -i setsid sleep 300 &',
        '(setsid sleep 300 &) &',
        '(exec -a kworker sleep 300) & ',
        'env -i PATH="$PATH" setsid sh -c "sleep 300 & sleep 300 &"',
      ];
      const pid = startIn(cell, `exec bash -c '${hide.join('\n')}\nexec sleep 300'`);
      await counts(cell, 6);
      expect(cell.pids()).toContain(pid);
      expect(cell.pids()).not.toContain(process.pid);
    });

    test('those in cgroups below are counted too', async () => {
      const cell = makeCell({ nests: true });
      const below = join(cell.folder, 'a/b');
      mkdirSync(below, { recursive: true });
      startIn(cell, `echo 0 >${below}/cgroup.procs; sleep 300 & exec sleep 300`);
      await counts(cell, 2);
      expect(readFileSync(join(below, 'cgroup.procs'), 'utf8').trim().split('\n')).toHaveLength(2);
    });

    test('who is gone is not, though nobody has waited for it', async () => {
      const cell = makeCell({ nests: true });
      const pid = startIn(cell, 'sleep 300 & exec sleep 300');
      await counts(cell, 2);
      const child = cell.pids().find((each) => each !== pid) ?? 0;
      end(child);
      await counts(cell, 1);
      expect(readFileSync(`/proc/${child}/stat`, 'utf8')).toMatch(/\) Z /);
      await expect(cell.untilEmpty(50)).rejects.toThrow(`1 live: ${pid} sleep 300`);
      end(pid);
      expect(await cell.untilEmpty()).toBeLessThan(10_000);
    });

    test('it can be closed to cgroups below, as on a host that gives none', () => {
      const cell = makeCell({ nests: false });
      expect(() => mkdirSync(join(cell.folder, 'below'))).toThrow(/EAGAIN/);
    });

    test('at the end of its test everybody in it is gone, and so is it', async () => {
      const seen: { cell?: Cell } = {};
      // What is registered first is done last.
      onTestFinished(() => {
        expect(seen.cell?.pids()).toEqual([]);
        expect(existsSync(seen.cell?.folder ?? '/')).toBe(false);
      });
      seen.cell = makeCell({ nests: true });
      mkdirSync(join(seen.cell.folder, 'below'));
      startIn(seen.cell, 'trap "" TERM HUP; setsid sleep 300 & sleep 300');
      await counts(seen.cell, 3);
    });
  },
);
