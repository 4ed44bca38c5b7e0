// What a run writes down, step by step.
import { expect, test } from 'vitest';
import { clock } from '../../src/platform/clock.ts';
import { openNote, settleBefore } from '../../src/commands/exec/run-note.ts';
import type { NoteDeps } from '../../src/commands/exec/run-note.ts';
import type { Grant } from '../../src/lock/grant.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { runFilesInMemory } from '../support/run-files.ts';

const self = { pid: 10, startTime: '1', bootId: 'boot ns' };
const NAMES = { run: 'r1', nonce: 'n', groups: ['runlock/a', 'runlock/b'] };
const process = (pid: number) => ({ pid, startTime: String(pid) });

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
  note.granted(grantOf('a', 'r1'));
  expect(kept()).toBeUndefined();
  note.starts(undefined);
  expect(kept()).toEqual({
    ...NAMES,
    node: 'web01',
    bootId: 'boot ns',
    runlock: { pid: 10, startTime: '1' },
  });
  note.started(process(11), [12]);
  expect(kept()).toMatchObject({ node: 'web01', command: process(11), guard: process(12) });
  note.looked([process(11), process(13)], [12]);
  note.looked([process(11), process(13)], [12]);
  note.looked([process(11), process(13)], [14]);
  expect(runFiles.written).toHaveLength(4);
  expect(kept()).toMatchObject({ members: [process(11), process(13)], guard: process(14) });
  note.ended('failed', 3);
  expect(kept()).toMatchObject({ ended: { outcome: 'failed', exitCode: 3 }, command: process(11) });
});

test('where its processes will be is known before the command is', () => {
  const { note, kept } = setUp();
  note.starts('/sys/fs/cgroup/runlock-r1');
  expect(kept()).toMatchObject({ cgroup: '/sys/fs/cgroup/runlock-r1' });
  expect(kept()).not.toHaveProperty('command');
});

test('it goes with the last slot that is given back, and stays for the groups whose slot could not be', () => {
  const { note, kept } = setUp();
  note.started(process(11), [12]);
  note.left(['runlock/b']);
  note.close();
  expect(kept()?.groups).toEqual(['runlock/b']);
  note.left([]);
  note.close();
  expect(kept()).toBeUndefined();
});

test('it goes with a run whose command could not be started, and stays with one that broke off after it', () => {
  const waiting = setUp();
  waiting.note.starts(undefined);
  waiting.note.close();
  expect(waiting.kept()).toBeUndefined();
  const running = setUp();
  running.note.started(process(11), [12]);
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
