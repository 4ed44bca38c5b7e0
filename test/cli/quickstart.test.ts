// What `npm start` runs: it shows what it promises, fails when that does not hold, and leaves nothing behind.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { end, eventually, scene } from '../support/processes.ts';

const ROOT = resolve(import.meta.dirname, '../..');

/** Processes that inherited this mark. */
function carriers(mark: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      try {
        return pid > 0 && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(mark);
      } catch {
        return false;
      }
    });
}

function startQuickstart(runlock?: (folder: string) => string, env: Record<string, string> = {}) {
  const { folder, clean } = scene();
  const mark = `QUICKSTART_MARK=${randomUUID()}`;
  onTestFinished(() => {
    carriers(mark).forEach(end);
    clean();
  });
  const temporary = join(folder, 'tmp');
  mkdirSync(temporary);
  // What was fetched before; the test's own Consul and Ansible are named by variables.
  const cache = join(folder, 'cache');
  mkdirSync(join(cache, 'runlock-test/consul'), { recursive: true });
  writeFileSync(join(cache, 'runlock-test/consul/program'), Buffer.alloc(3_000_000));
  const [name = '', value] = mark.split('=');
  const child = spawn(process.execPath, ['scripts/run.js', 'scripts/quickstart.ts'], {
    cwd: ROOT,
    env: {
      ...process.env,
      ...env,
      [name]: value,
      TMPDIR: temporary,
      XDG_CACHE_HOME: cache,
      ...(runlock && { RUNLOCK_BIN: runlock(folder) }),
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A process group that can be signalled as a terminal does it.
    detached: true,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  return {
    pid: child.pid ?? 0,
    /** Resolves when nobody holds its output any more. */
    ended: once(child, 'close').then(([status]: unknown[]) => status),
    output: () => output,
    cache,
    processes: () => carriers(mark),
    files: () => readdirSync(temporary),
  };
}

test('it shows a group that a failed node stops, and that its next run heals', async () => {
  const started = startQuickstart();
  await eventually(() => expect(started.output()).toContain('The group is blocked'), 30_000);
  expect(started.processes().length).toBeGreaterThan(3);
  expect(started.files()).toHaveLength(2);
  expect(await started.ended).toBe(0);
  const [before = '', still = '', healed = '', last = '', agents = ''] = started
    .output()
    .split(/^(?:The group is blocked|The cause is repaired|All three nodes|Two nodes with an agent).*$/m);
  expect(before).toContain('web01 | fatal: [localhost]: FAILED!');
  expect(before).not.toMatch(/^web0[23] \| (?!runlock: (?:web0[23] is waiting|slot 0 of \S+ web01 failed))/m);
  expect(still).toMatch(/0 +failed +web01 .* ansible-playbook +2 +forever/);
  expect(still).toMatch(/1 +web02 [^]*2 +web03 /);
  expect(still).toContain('fix: runlock release prod/web --owner web01');
  // Whoever waits may hear of it only now.
  expect(still).not.toMatch(/^web0\d \| (?!runlock: slot 0 of \S+ web01 failed)/m);
  expect(healed.match(/^web0\d(?= \| PLAY \[)/gm)).toEqual(['web01', 'web02', 'web03']);
  expect(healed.match(/^web0\d(?= \| localhost .* failed=0 )/gm)).toEqual(['web01', 'web02', 'web03']);
  expect(last).toContain('idle: nothing running or waiting');
  expect(agents).toMatch(/^ops \| db01: good .*: migrating$/m);
  expect(agents).toMatch(/^web01's agent \| .* starting task reload: changed: state:db\/schema$/m);
  expect(agents).toMatch(/^ +prod\/app +succeeded/m);
  expect(agents).toContain(`3 MB in ${started.cache}/runlock-test`);
  expect(agents).toContain(`To remove them: rm -r ${started.cache}/runlock-test\n`);
  expect(started.processes()).toEqual([]);
  expect(started.files()).toEqual([]);
});

test('Ctrl-C ends all that it started and removes its files', async () => {
  const started = startQuickstart();
  await eventually(() => expect(started.output()).toContain('web01 | TASK'), 30_000);
  expect(started.processes().length).toBeGreaterThan(3);
  process.kill(-started.pid, 'SIGINT');
  expect(await started.ended).toBe(1);
  expect(started.output()).toContain('quickstart: ended by SIGINT');
  await eventually(() => expect(started.processes()).toEqual([]));
  expect(started.files()).toEqual([]);
});

test('Ctrl-C also ends agents, and what they have started', async () => {
  // Without Ansible it is there sooner.
  const started = startQuickstart(undefined, { ANSIBLE_PLAYBOOK_BIN: '/nowhere' });
  await eventually(() => expect(started.output()).toContain('ops | db01: running'), 30_000);
  process.kill(-started.pid, 'SIGINT');
  expect(await started.ended).toBe(1);
  expect(started.processes()).toEqual([]);
  expect(started.files()).toEqual([]);
});

/** A runlock that locks nothing. */
function careless(folder: string): string {
  const file = join(folder, 'runlock');
  const script = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"';
  writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return file;
}

test('it fails, and says of what, when what it shows does not hold', async () => {
  const started = startQuickstart(careless, { ANSIBLE_PLAYBOOK_BIN: '/nowhere' });
  expect(await started.ended).toBe(1);
  expect(started.output()).toContain('quickstart: expected, but not seen: web01 gets the slot');
  expect(started.processes()).toEqual([]);
  expect(started.files()).toEqual([]);
});
