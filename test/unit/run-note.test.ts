// What a run writes down, step by step.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import { openNote, settleBefore } from '../../src/runner/run-note.ts';
import type { NoteDeps } from '../../src/runner/run-note.ts';
import type { Grant } from '../../src/lock/head-of-queue.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { runFilesInMemory } from '../support/run-files.ts';

const self = { pid: 10, startTime: '1', bootId: 'boot ns' };
const NAMES = { run: 'r1', nonce: 'n', groups: ['runlock/a', 'runlock/b'] };
const process = (pid: number) => ({ pid, startTime: String(pid) });
const command = (pid: number) => ({ ...process(pid), isContained: false });

function setUp() {
  const runFiles = runFilesInMemory();
  const host = { self: () => self, startTime: (pid: number) => String(pid) } as NoteDeps['host'];
  const deps = { clock, host, runFiles };
  return { deps, runFiles, note: openNote(deps, NAMES), kept: () => runFiles.kept.get('r1') };
}

const grantOf = (group: string, run: string, before?: string) =>
  ({
    context: { keys: groupKeys('runlock', group), run: { id: run, node: 'web01' } },
    ...(before !== undefined && { before: { run: before } }),
  }) as Grant;

test('it is granted, starts, looks and ends, each time with all that was known before', () => {
  const { note, runFiles, kept } = setUp();
  note.granted('web01');
  expect(kept()).toBeUndefined();
  note.starts(undefined);
  expect(kept()).toEqual({
    ...NAMES,
    node: 'web01',
    bootId: 'boot ns',
    runlock: { pid: 10, startTime: '1' },
  });
  note.started(command(11), [12]);
  expect(kept()).toMatchObject({ node: 'web01', command: process(11), guard: process(12) });
  note.looked([process(11), process(13)], [12]);
  note.looked([process(11), process(13)], [12]);
  note.looked([process(11), process(13)], [14]);
  expect(runFiles.written).toHaveLength(4);
  expect(kept()).toMatchObject({ members: [process(11), process(13)], guard: process(14) });
  note.ended('failed', 3);
  expect(kept()).toMatchObject({ ended: { outcome: 'failed', exitCode: 3 }, command: process(11) });
});

describe('of a command in a cgroup', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());
  const contained = { ...command(11), isContained: true };

  test('who it is, and its guard, is written when it has run for a moment', () => {
    const { note, kept } = setUp();
    note.starts('/sys/fs/cgroup/runlock-r1');
    note.started(contained, [12]);
    expect(kept()).not.toHaveProperty('command');
    vi.advanceTimersByTime(10);
    expect(kept()).toMatchObject({ command: process(11), guard: process(12) });
  });

  test('that has ended by then, its end alone is written, with who it was', () => {
    const { note, runFiles, kept } = setUp();
    note.starts('/sys/fs/cgroup/runlock-r1');
    note.started(contained, [12]);
    note.ended('failed', 3);
    note.left([]);
    note.close();
    vi.advanceTimersByTime(60_000);
    expect(runFiles.written).toHaveLength(2);
    expect(runFiles.written.at(-1)).toMatchObject({ command: process(11), ended: { outcome: 'failed' } });
    expect(kept()).toBeUndefined();
  });
});

test('what is written before the command is written once, however often the run gets ready', () => {
  const { note, runFiles } = setUp();
  note.starts('/sys/fs/cgroup/runlock-r1');
  note.starts('/sys/fs/cgroup/runlock-r1');
  expect(runFiles.written).toHaveLength(1);
});

test('where its processes will be is known before the command is', () => {
  const { note, kept } = setUp();
  note.starts('/sys/fs/cgroup/runlock-r1');
  expect(kept()).toMatchObject({ cgroup: '/sys/fs/cgroup/runlock-r1' });
  expect(kept()).not.toHaveProperty('command');
});

test('it goes with the last slot that is given back, and stays for groups whose slot was not', () => {
  const { note, kept } = setUp();
  note.started(command(11), [12]);
  note.left(['runlock/b']);
  note.close();
  expect(kept()?.groups).toEqual(['runlock/b']);
  note.left([]);
  note.close();
  expect(kept()).toBeUndefined();
});

test('it goes with a run whose command could not start, and stays with one that broke off after', () => {
  const waiting = setUp();
  waiting.note.starts(undefined);
  waiting.note.close();
  expect(waiting.kept()).toBeUndefined();
  const running = setUp();
  running.note.started(command(11), [12]);
  running.note.close();
  expect(running.kept()).toBeDefined();
});

test('that of the run before goes when its claims are this run’s, and none goes for its own', () => {
  const { deps, runFiles, note } = setUp();
  note.starts(undefined);
  runFiles.write({ ...NAMES, run: 'r0', bootId: 'boot ns', runlock: process(10) });
  settleBefore(deps, [{ grant: grantOf('a', 'r1', 'r1') }, { grant: grantOf('b', 'r1') }]);
  expect([...runFiles.kept.keys()]).toEqual(['r1', 'r0']);
  settleBefore(deps, [{ grant: grantOf('a', 'r1', 'r0') }]);
  expect([...runFiles.kept.keys()]).toEqual(['r1']);
});
