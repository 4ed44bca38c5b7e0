// Which logs of runs go when a new one begins.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { describe, expect, onTestFinished, test } from 'vitest';
import { oldLogs, removeOldLogs } from '../../src/agent/logs.ts';
import type { LogFile } from '../../src/agent/logs.ts';

const logs = (...bytes: number[]): LogFile[] =>
  bytes.map((one, at) => ({ path: `/l/${at}.log`, bytes: one, writtenMs: 1_000 + at })).reverse();
const bounds = { bytes: 100, files: 4, free: 0.05, ageMs: 10_000 };
const disk = { freeBytes: 1_000, bytes: 10_000 };
const at = { nowMs: 2_000, disk, bounds };
const none = () => false;
const paths = (files: readonly LogFile[]) => files.map(({ path }) => path);

describe('old logs', () => {
  test('none, while all keep the bounds', () => {
    expect(oldLogs(logs(50, 50), none, at)).toEqual([]);
    expect(oldLogs([], none, at)).toEqual([]);
  });

  test('the oldest, until the rest keeps them', () => {
    expect(paths(oldLogs(logs(10, 30, 50, 50), none, at))).toEqual(['/l/0.log', '/l/1.log']);
  });

  test('the oldest, until enough of the disk is free', () => {
    const full = { ...at, disk: { freeBytes: 480, bytes: 10_000 } };
    expect(paths(oldLogs(logs(15, 10, 10), none, full))).toEqual(['/l/0.log', '/l/1.log']);
  });

  test('the oldest, until there are no more than may be', () => {
    expect(oldLogs(logs(1, 1, 1, 1), none, at)).toEqual([]);
    expect(paths(oldLogs(logs(1, 1, 1, 1, 1, 1), none, at))).toEqual(['/l/0.log', '/l/1.log']);
  });

  test('those past their age, and no others', () => {
    expect(paths(oldLogs(logs(1, 1, 1), none, { ...at, nowMs: 11_001 + 1 }))).toEqual([
      '/l/0.log',
      '/l/1.log',
    ]);
  });

  test('never those of runs under way, but what these take counts', () => {
    const isKept = (path: string) => path === '/l/0.log';
    expect(paths(oldLogs(logs(90, 10, 10, 10), isKept, at))).toEqual(['/l/1.log', '/l/2.log']);
    expect(oldLogs(logs(900), () => true, at)).toEqual([]);
  });
});

test('they are removed from the folder and its folders; links, other files and live runs stay', async () => {
  const folder = mkdtempSync(`${tmpdir()}/logs-`);
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  mkdirSync(`${folder}/ops/deep`, { recursive: true });
  const make = (name: string) => {
    writeFileSync(`${folder}/${name}`, 'x'.repeat(10));
    utimesSync(`${folder}/${name}`, 1, 1);
  };
  [
    'a.log',
    'ops/b.chef.log',
    'ops/b.chef.log.1',
    'ops/c.log',
    'ops/c.log.2',
    'ops/keep.txt',
    'ops/deep/d.log',
  ].forEach(make);
  symlinkSync(`${folder}/ops/keep.txt`, `${folder}/link.log`);
  symlinkSync(`${folder}/ops`, `${folder}/other`);
  const live = (path: string) => path.startsWith(`${folder}/ops/c.`);
  expect(await removeOldLogs(folder, live, { nowMs: Date.now() })).toBe(30);
  expect(readdirSync(folder).sort()).toEqual(['link.log', 'ops', 'other']);
  expect(readdirSync(`${folder}/ops`).sort()).toEqual(['c.log', 'c.log.2', 'deep', 'keep.txt']);
  expect(await removeOldLogs(`${folder}/none`, live, { nowMs: Date.now() })).toBe(0);
});
