// `runlock agent status`: what is true now, by what the agent has left on this host.
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { notWritten, openStateFolder } from '../../src/agent/state-folder.ts';
import { folderProblems } from '../../src/commands/agent/folders.ts';
import { statusOf, statusReport, statusText } from '../../src/commands/agent/status.ts';
import type { Host } from '../../src/platform/deps.ts';
import { stage } from '../support/stage.ts';

const NOW = Date.UTC(2026, 2, 1, 12);
const uid = process.getuid?.() ?? 0;
const host = { bootId: 'b', startTime: () => '7' } as unknown as Host;

function agent(contactMs: number | undefined, more: object = {}) {
  const { folder } = stage();
  const state = openStateFolder(folder, { uid });
  const since = new Date(NOW - 600_000).toISOString();
  state.writeReport({
    ...{ version: '1', pid: 1, startTime: '7', bootId: 'b', since, tasks: ['t'], faults: [] },
    ...{ status: 'registered as web01, 1 task', place: { kind: 'registered', node: 'web01' } },
    ...{ logDir: `${folder}/log`, ttlMs: 90_000, ...more },
  });
  if (contactMs !== undefined) state.noteContact(contactMs);
  return { folder, state, status: () => statusOf(state, host, NOW) };
}

describe('an agent that is running', () => {
  test('is registered as of the last answer of Consul', () => {
    const { status } = agent(NOW - 20_000);
    expect(status()).toMatchObject({ isRunning: true, isRegistered: true });
    expect(statusText(status(), NOW)).toBe(
      'running for 10m (pid 1, runlock 1)\nregistered as web01, 1 task\nlast answer from Consul: 20s ago\ntasks: t\n',
    );
    expect(statusReport(status())).toMatchObject({
      registered: true,
      contactAt: new Date(NOW - 20_000).toISOString(),
    });
  });

  test('is not registered once Consul is silent for longer than its session lives', () => {
    expect(agent(NOW - 90_000).status().isRegistered).toBe(true);
    expect(agent(NOW - 90_001).status().isRegistered).toBe(false);
    expect(agent(NOW - 300_000, { ttlMs: 600_000 }).status().isRegistered).toBe(true);
    const { status } = agent(NOW - 180_000);
    expect(statusText(status(), NOW)).toContain(
      'registered as web01, 1 task: as of its last contact with Consul\nlast answer from Consul: 3m ago; it waits for Consul\n',
    );
    expect(statusReport(status())).toMatchObject({ running: true, registered: false });
  });

  test('of an older runlock, which noted no contact, is what it says', () => {
    const { status } = agent(undefined, { logDir: undefined, ttlMs: undefined });
    expect(status()).toMatchObject({ isRegistered: true, problems: [] });
    expect(statusText(status(), NOW)).not.toContain('last answer');
  });

  test('whose log folder is no folder can start no run', () => {
    const { folder, status } = agent(NOW);
    writeFileSync(`${folder}/log`, '');
    expect(statusText(status(), NOW)).toMatch(/the log folder \S+\/log can't be written/);
    expect(statusReport(status())).toMatchObject({ problems: [expect.stringContaining('/log')] });
  });
});

test('one that runs no more is neither silent, nor are its folders looked at', () => {
  const { folder, status } = agent(NOW - 300_000, { startTime: '8' });
  writeFileSync(`${folder}/log`, '');
  expect(status()).toMatchObject({ isRunning: false, isRegistered: false, isSilent: false, problems: [] });
  expect(statusText(status(), NOW)).toMatch(/^not running; its last words .*\n$/);
});

test('the time of the last answer is written over and over into one empty file', () => {
  const { folder, state } = agent(NOW - 5_000);
  state.noteContact(NOW);
  expect(state.contactMs()).toBe(NOW);
  expect(statSync(`${folder}/contact`).size).toBe(0);
});

test('a folder without room, or that can not be written, is a problem; a missing one is none', () => {
  const { folder } = stage();
  const at = { what: 'log folder', path: `${folder}/log` };
  const fine = { access: () => undefined, freeBytes: () => 65_536 };
  expect(folderProblems([at], fine)).toEqual([]);
  expect(folderProblems([at])).toEqual([]);
  mkdirSync(at.path);
  expect(folderProblems([at])).toEqual([]);
  expect(folderProblems([at], { ...fine, freeBytes: () => 65_535 })).toEqual([
    `the disk of the log folder ${at.path} is full: no run can start; free some space there`,
  ]);
  const failing = (code: string) => () => {
    throw Object.assign(new Error(`${code}: x`), { code });
  };
  for (const [code, advice] of [
    ['EACCES', 'make it writable'],
    ['EROFS', 'its file system is mounted read-only: remount it for writing'],
    ['EIO', 'its disk fails'],
  ] as const) {
    const [said = ''] = folderProblems([at], { ...fine, access: failing(code) });
    expect(said).toContain(`${at.path} can't be written (${code}: x): no run can start; ${advice}`);
  }
});

test.each([
  ['ENOSPC', /free some space there; until then, 'systemctl stop runlock-agent'/],
  ['EDQUOT', /free some space/],
  ['EROFS', /; its file system is mounted read-only: remount it for writing .*; until then, 'systemctl stop/],
  ['EIO', /; its disk fails .*; until then, 'systemctl stop/],
  ['EACCES', /run this as the user that the agent runs as .* or name the agent's folder with --state-dir/],
  ['ENOTDIR', /--state-dir/],
])('what an operator tells an agent whose folder is not written (%s): what to do', (code, advice) => {
  const error = notWritten('/var/lib/runlock', Object.assign(new Error(`${code}: x`), { code }));
  expect(error).toMatchObject({ code: 'config' });
  expect(error.message).toMatch(/^cannot write to \/var\/lib\/runlock: E/);
  expect(error.message).toMatch(advice);
});
