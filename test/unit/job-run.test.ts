// What a node notes on its disk of the jobs that it starts, and what the end of a run is called in its job.
import { chmodSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { listOf } from '../../src/consul/txn.ts';
import { checkFolder, takeFolder } from '../../src/jobs/folder-node.ts';
import {
  endInLedger,
  hasStarted,
  ledgerFile,
  noteEnd,
  noteStart,
  readLedger,
} from '../../src/jobs/ledger.ts';
import type { Outcome } from '../../src/lock/records.ts';
import { endOf } from '../../src/runner/job-end.ts';
import type { Ran } from '../../src/runner/ran.ts';
import type { HeldSlots } from '../../src/runner/slots.ts';
import { stage } from '../support/stage.ts';

const at = '2026-03-01T12:00:00.000Z';
const ref = { principal: 'ops', id: 'deploy-1' };
const entry = { nonce: 'n1', node: 'web01', run: 'r1', bootId: 'b1', startedAt: at };
const end = { state: 'good', endedAt: at, exitCode: 0 } as const;

describe('what is on the disk', () => {
  test('of a job that was never started is nothing', () => {
    const { folder } = stage();
    expect(readLedger(folder, ref)).toEqual({ kind: 'empty' });
    expect(readLedger(join(folder, 'none'), ref)).toEqual({ kind: 'empty' });
    expect(hasStarted(readLedger(folder, ref), 'n1')).toBe(false);
    expect(noteEnd(folder, ref, { run: 'r1', end })).toBeUndefined();
    expect(readLedger(folder, ref)).toEqual({ kind: 'empty' });
  });

  test('of a start is for its owner alone, and says lost until its end is known', () => {
    const { folder } = stage();
    noteStart(folder, ref, entry);
    expect(readLedger(folder, ref)).toEqual({ kind: 'started', entry: { v: 1, ...entry } });
    expect(endInLedger(readLedger(folder, ref))).toMatchObject({ state: 'lost' });
    const file = ledgerFile(folder, ref);
    expect([statSync(file).mode & 0o777, statSync(dirname(file)).mode & 0o777]).toEqual([0o600, 0o700]);
    expect(noteEnd(folder, ref, { run: 'r1', end })).toBeUndefined();
    expect(endInLedger(readLedger(folder, ref))).toMatchObject(end);
    expect(readdirSync(dirname(file))).toEqual([ref.id]);
  });

  test('keeps a second start of the same request away, not that of a later one of this name', () => {
    const { folder } = stage();
    noteStart(folder, ref, entry);
    expect(() => noteStart(folder, ref, { ...entry, run: 'r2' })).toThrow(
      /has started job ops\/deploy-1 already/,
    );
    noteStart(folder, ref, { ...entry, nonce: 'n2', run: 'r2' });
    expect(readLedger(folder, ref)).toMatchObject({ entry: { nonce: 'n2', run: 'r2' } });
    // That of another run is not its end.
    expect(noteEnd(folder, ref, { run: 'r1', end })).toBeUndefined();
    expect(readLedger(folder, ref)).not.toHaveProperty('entry.end');
  });

  test.each([
    ['rubbish', 'rubbish'],
    ['nothing', ''],
    ['an end that is none', JSON.stringify({ v: 1, ...entry, end: { state: 'splendid', endedAt: at } })],
    ['a newer version', JSON.stringify({ v: 2, ...entry })],
  ])('that is %s counts as started, and as lost', (_, text) => {
    const { folder } = stage();
    const file = ledgerFile(folder, ref);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    const ledger = readLedger(folder, ref);
    expect(ledger).toMatchObject({ kind: 'unreadable' });
    expect(hasStarted(ledger, 'n1')).toBe(true);
    expect(endInLedger(ledger)).toMatchObject({
      state: 'lost',
      why: expect.stringContaining(file) as string,
    });
    expect(() => noteStart(folder, ref, entry)).toThrow(/already/);
    expect(noteEnd(folder, ref, { run: 'r1', end })).toBeUndefined();
  });

  test('takes no note: that is said, and nothing half written stays', () => {
    const { folder } = stage();
    writeFileSync(join(folder, 'jobs'), '');
    expect(() => noteStart(folder, ref, entry)).toThrow(/cannot write .*jobs\/ops\/deploy-1, without which/);
    const other = stage().folder;
    noteStart(other, ref, entry);
    mkdirSync(`${ledgerFile(other, ref)}.new`);
    chmodSync(dirname(ledgerFile(other, ref)), 0o700);
    expect(noteEnd(other, ref, { run: 'r1', end })).toMatch(/^cannot write /);
    expect(readLedger(other, ref)).not.toHaveProperty('entry.end');
  });

  test('of another node is neither this node’s start nor its end, and is kept', () => {
    const { folder } = stage();
    noteStart(folder, ref, entry);
    noteEnd(folder, ref, { run: 'r1', end });
    expect(endInLedger(readLedger(folder, ref, 'web01'))).toMatchObject({ state: 'good' });
    const others = readLedger(folder, ref, 'web02');
    expect(others).toEqual({ kind: 'others', node: 'web01' });
    expect(hasStarted(others, 'n1')).toBe(false);
    expect(endInLedger(others).state).toBe('lost');
    // An operator has said that the node was renamed.
    rmSync(join(folder, 'node'));
    expect(() => noteStart(folder, ref, { ...entry, node: 'web02' })).toThrow(/belongs to node web01/);
    expect(readLedger(folder, ref, 'web01')).toMatchObject({ kind: 'started' });
  });

  test('written by a runlock that did not note the node counts as this node’s', () => {
    const { folder } = stage();
    const file = ledgerFile(folder, ref);
    const { node, ...older } = entry;
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, JSON.stringify({ v: 1, ...older, end }));
    expect(hasStarted(readLedger(folder, ref, node), 'n1')).toBe(true);
    expect(() => noteStart(folder, ref, entry)).toThrow(/already/);
  });

  test.each(['..', 'a/b', '', 'A B'])('never leaves its folder by the name %j', (name) => {
    expect(() => ledgerFile('/s', { principal: name, id: 'a' })).toThrow(/is not the name of a job/);
    expect(() => ledgerFile('/s', { principal: 'ops', id: name })).toThrow(/is not the name of a job/);
  });
});

describe('a state folder', () => {
  test('belongs to the node that used it first, and to no other', () => {
    const { folder } = stage();
    const state = join(folder, 'lib/state');
    checkFolder(state, 'web02');
    expect(readdirSync(folder)).toEqual([]);
    takeFolder(state, 'web01');
    takeFolder(state, 'web01');
    checkFolder(state, 'web01');
    expect(readdirSync(state)).toEqual(['node']);
    for (const use of [checkFolder, takeFolder])
      expect(() => use(state, 'web02')).toThrow(
        expect.objectContaining({ code: 'config', message: expect.stringContaining('web01') as string }),
      );
  });

  test('keeps a job of another node from being noted there', () => {
    const { folder } = stage();
    takeFolder(folder, 'web02');
    expect(() => noteStart(folder, ref, entry)).toThrow(/belongs to node web02, and this is node web01/);
    expect(readLedger(folder, ref)).toEqual({ kind: 'empty' });
  });

  test.each(['', 'web01', JSON.stringify({ v: 2, node: 'web01' })])(
    'with %j in its file is nobody’s',
    (text) => {
      const { folder } = stage();
      writeFileSync(join(folder, 'node'), text);
      for (const use of [checkFolder, takeFolder])
        expect(() => use(folder, 'web01')).toThrow(expect.objectContaining({ code: 'unwritten' }));
    },
  );

  test('that takes no file says so', () => {
    const { folder } = stage();
    writeFileSync(join(folder, 'file'), '');
    expect(() => takeFolder(join(folder, 'file/state'), 'web01')).toThrow(
      expect.objectContaining({
        code: 'unwritten',
        message: expect.stringContaining('cannot write') as string,
      }),
    );
  });
});

describe('the end of a run, in its job', () => {
  const held = (hold: string | number) =>
    [{ waitedMs: 0, grant: { owner: { index: 1 }, context: { run: { hold } } } }] as unknown as HeldSlots;
  const slots = held('forever');
  test.each([
    ['forever', 'rebooting', true],
    [30_000, 'rebooting', undefined],
    ['none', 'rebooting', undefined],
    ['forever', 'failed', undefined],
  ] as const)('its claim stays for ever, with hold %s, of one that is %s: %s', (hold, outcome, expected) => {
    const ran = { outcome, ending: { kind: 'exited', code: 3 }, ranMs: 1 } as unknown as Ran;
    expect(endOf(held(hold), ran, at).holds).toBe(expected);
  });

  const lost = { kind: 'lost', why: 'gone', group: 'web' } as const;
  test.each<[Outcome, Partial<Ran>, object]>([
    ['succeeded', {}, { state: 'good', exitCode: 3 }],
    ['failed', {}, { state: 'failed', exitCode: 3 }],
    [
      'failed',
      { cause: { kind: 'cancelled', why: 'ann cancelled it' } },
      { state: 'cancelled', why: 'ann cancelled it' },
    ],
    ['unhealthy', { why: 'web is down' }, { state: 'unhealthy', why: 'web is down' }],
    ['timed-out', { cause: { kind: 'timed-out' } }, { state: 'timed-out' }],
    ['rebooting', {}, { state: 'rebooting' }],
    ['interrupted', { cause: { kind: 'signal' } }, { state: 'failed', why: 'a signal ended the run' }],
    ['interrupted', { told: 'SIGTERM' }, { state: 'failed' }],
    [
      'evicted',
      { cause: { kind: 'evicted', by: 'ann', group: 'web' } },
      { state: 'failed', why: 'ann evicted the run from web' },
    ],
    ['lost', { cause: lost }, { state: 'lost', why: 'lost the lock of web (gone)' }],
    ['lost', { cause: lost, unpublished: 'not recorded' }, { state: 'lost', why: 'not recorded' }],
  ])('%s %o', (outcome, more, expected) => {
    const ran = {
      outcome,
      ending: { kind: 'exited', code: 3 },
      ranMs: 1,
      cause: undefined,
      ...more,
    } as unknown as Ran;
    const found = endOf(slots, ran, at);
    expect(found).toMatchObject({ endedAt: at, ...expected });
    // A code of 0 would suggest success.
    expect('exitCode' in found).toBe(more.told === undefined);
  });
});

test('a step is found in its own list', () => {
  const lists = [['a', 'b'], [], ['c']];
  expect([-1, 0, 1, 2, 3].map((at) => listOf(lists, at))).toEqual([undefined, 0, 0, 2, undefined]);
});
