import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { machineOf } from '../../src/process/host.ts';

function fileWith(text: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'runlock-machine-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'machine-id'), text);
  return join(folder, 'machine-id');
}

/** What systemd itself makes of this host's machine-id; undefined where it is not at hand. */
function systemds(): string | undefined {
  try {
    const args = ['machine-id', '--app-specific=b7a1f5de0c4e4c1f9d0b6a3e58c2f417'];
    return execFileSync('systemd-id128', args, { encoding: 'utf8', stdio: 'pipe' }).trim();
  } catch {
    return undefined;
  }
}

test('a machine is known by what systemd makes of its machine-id, and not by that itself', async () => {
  const known = fileWith('0123456789abcdef0123456789abcdef\n');
  expect(await machineOf(known)).toBe('ef92f629d44c4056a6ef4194c7af35fb');
  const other = fileWith('1123456789abcdef0123456789abcdef\n');
  expect(await machineOf(other)).not.toBe(await machineOf(known));
});

test.skipIf(systemds() === undefined)('systemd-id128 agrees', async () => {
  expect(await machineOf()).toBe(systemds());
});

test.each(['', 'uninitialized\n', `${'0'.repeat(32)}\n`, 'not an id'])(
  'a machine-id that is %j names no machine',
  async (text) => {
    expect(await machineOf(fileWith(text))).toBeUndefined();
  },
);

test('where there is none, none is made up', async () => {
  expect(await machineOf('/nowhere/machine-id')).toBeUndefined();
});
