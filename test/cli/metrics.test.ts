// What --metrics-file leaves for node_exporter, read by Prometheus's own parser.
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { promtool } from '../support/provision.ts';
import { stage } from '../support/stage.ts';
import { runlock } from '../support/runlock.ts';

const agent = useAgent();
let parser: string;
beforeAll(async () => {
  parser = await promtool();
});

/** What the parser makes of the file; throws with what it finds wrong. */
function lint(file: string): void {
  const said = execFileSync(parser, ['check', 'metrics'], { input: readFileSync(file), encoding: 'utf8' });
  expect(said).toBe('');
}

/** Metric → value; of the outcomes the one that is 1. */
function figures(file: string, group: string): Record<string, string | number> {
  lint(file);
  const found: Record<string, string | number> = {};
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    const [, name = '', labels = '', value = ''] = /^runlock_(\w+)\{(.*)\} (\S+)$/.exec(line) ?? [];
    if (name === '') continue;
    expect(labels).toContain(`group="${group}"`);
    const [, outcome] = /outcome="(.*)"/.exec(labels) ?? [];
    if (outcome === undefined) found[name] = Number(value);
    else if (value === '1') found[name] = outcome;
  }
  return found;
}

/** web01 in a group of the test's own, with a metrics file. */
function setup() {
  const { folder } = stage();
  const file = `${folder}/runlock.prom`;
  const on = groupOf(agent, undefined, { args: ['--metrics-file', file] });
  return {
    ...{ folder, file, on, group: on.name },
    exec: (...more: string[]) => on.exec('web01', ...more),
    figures: () => figures(file, on.name),
  };
}

const SUCCESS = 'run_last_success_timestamp_seconds';

describe('every outcome is written, and the last success stays', () => {
  test('succeeded, then failed, rebooting and timed out', async () => {
    const { exec, figures } = setup();
    const beforeMs = Date.now();
    await exec('--', 'true');
    const good = figures();
    expect(good).toMatchObject({ last_outcome: 'succeeded', last_exit_code: 0 });
    expect(Object.keys(good)).toEqual([
      ...[SUCCESS, 'run_duration_seconds', 'wait_seconds', 'last_exit_code', 'last_outcome'],
    ]);
    expect(good[SUCCESS]).toBeGreaterThanOrEqual(beforeMs / 1000);
    expect(good[SUCCESS]).toBeLessThanOrEqual(Date.now() / 1000);
    for (const [outcome, code, args] of [
      ['failed', 3, ['--', 'sh', '-c', 'exit 3']],
      ['rebooting', 35, ['--reboot-codes', '35', '--', 'sh', '-c', 'exit 35']],
      ['timed-out', 124, ['--timeout', '300ms', '--', 'sleep', '60']],
    ] as const) {
      expect((await exec(...args)).status).toBe(code);
      const now = figures();
      expect(now).toMatchObject({ last_outcome: outcome, last_exit_code: code, [SUCCESS]: good[SUCCESS] });
    }
    expect(figures()['run_duration_seconds']).toBeGreaterThanOrEqual(0.3);
  });

  test('busy, with the exit code that was asked for, and how long it waited', async () => {
    const { exec, figures, group } = setup();
    await exec('--', 'true');
    const good = figures();
    await groupOf(agent, group).exec('web02', '--', 'false');
    expect((await exec('-w', '1s', '-E', '0', '--', 'true')).status).toBe(0);
    const { run_duration_seconds } = good;
    const now = figures();
    expect(now).toMatchObject({ last_outcome: 'busy', last_exit_code: 0, run_duration_seconds });
    expect(now[SUCCESS]).toBe(good[SUCCESS]);
    expect(now['wait_seconds']).toBeGreaterThanOrEqual(1);
  });

  test('lost', async () => {
    const { on, figures } = setup();
    const run = await on.hold();
    const another = JSON.stringify({ ...(await on.claim()), node: 'web99', run: 'another' });
    await agent.kv.put(on.key('.slot/0/owner'), another);
    expect((await run.ended).status).toBe(79);
    expect(figures()).toMatchObject({ last_outcome: 'lost', last_exit_code: 79 });
  });

  test('evicted', async () => {
    const { on, figures, group } = setup();
    const run = await on.hold();
    await runlock(agent, ['release', group, '--owner', 'web01', '--force']);
    expect((await run.ended).status).toBe(79);
    expect(figures()).toMatchObject({ last_outcome: 'evicted', last_exit_code: 79 });
  });

  test('interrupted, while it runs and while it waits', async () => {
    const { on, figures, group } = setup();
    const run = await on.hold();
    run.signal('SIGTERM');
    expect((await run.ended).status).toBe(143);
    expect(figures()).toMatchObject({ last_outcome: 'interrupted', last_exit_code: 143 });
    // What web01 keeps is cleared, so that another node has it.
    await runlock(agent, ['release', group, '--owner', 'web01']);
    await groupOf(agent, group).exec('web02', '--', 'false');
    const waiter = on.start('web01', '--', 'true');
    await on.waiting();
    waiter.signal('SIGINT');
    expect((await waiter.ended).status).toBe(130);
    expect(figures()).toMatchObject({ last_outcome: 'interrupted', last_exit_code: 130 });
  });

  test('error: no such command, no Consul', async () => {
    const { exec, figures, on } = setup();
    await exec('--', 'true');
    const good = figures();
    expect((await exec('--', 'no-such-program')).status).toBe(127);
    expect(figures()).toMatchObject({ last_outcome: 'error', last_exit_code: 127, [SUCCESS]: good[SUCCESS] });
    const nowhere = { env: { CONSUL_HTTP_ADDR: '127.0.0.1:1' } };
    expect((await runlock(nowhere, on.words('web01', '--', 'true'))).status).toBe(69);
    expect(figures()).toMatchObject({ last_outcome: 'error', last_exit_code: 69, [SUCCESS]: good[SUCCESS] });
    expect(figures()).not.toHaveProperty('wait_seconds');
  });
});

test('a dry run is no attempt: nothing is written', async () => {
  const { exec, folder } = setup();
  expect((await exec('--dry-run', '--', 'true')).status).toBe(0);
  expect(readdirSync(folder)).toEqual([]);
});

test('RUNLOCK_METRICS_FILE does the same', async () => {
  const { file, group, figures } = setup();
  const env = { RUNLOCK_METRICS_FILE: file };
  await runlock(agent, ['exec', '-g', group, '--', 'true'], { env });
  expect(figures()).toMatchObject({ last_outcome: 'succeeded' });
});

test('a folder that does not exist is found out before anything runs: 78', async () => {
  const { folder, group } = setup();
  const file = `${folder}/none/runlock.prom`;
  const args = ['exec', '-g', group, '--metrics-file', file, '--', 'mkdir', `${folder}/none`];
  const { status, stderr } = await runlock(agent, args);
  expect(status).toBe(78);
  expect(stderr).toMatch(/^runlock: --metrics-file .*runlock\.prom: .* does not exist; create it, [^\n]+\n$/);
  expect(readdirSync(folder)).toEqual([]);
});

test('a file that can’t be written at the end is a warning, and the exit code is the command’s', async () => {
  const { exec, folder, file } = setup();
  // The command itself takes the file's place, so that it makes no difference who runs this.
  const { status, stderr } = await exec('--ok-codes', '4', '--', 'sh', '-c', `mkdir -p ${file}/in; exit 4`);
  expect(status).toBe(4);
  expect(stderr).toMatch(
    /^runlock: could not write --metrics-file .*runlock\.prom: it is not a regular file any more\n$/,
  );
  expect(readdirSync(folder)).toEqual(['runlock.prom']);
});

test('a file that has become a pipe meanwhile keeps no run from its end', async () => {
  const { exec, file } = setup();
  const { status, stderr } = await exec('--ok-codes', '4', '--', 'sh', '-c', `mkfifo ${file}; exit 4`);
  expect(status).toBe(4);
  expect(stderr).toMatch(/could not write [^\n]+: it is not a regular file any more\n$/);
});

// A file system that is frozen is as one whose server is gone: whoever writes there is out of reach of every signal.
test.skipIf(process.getuid?.() !== 0)('a folder that answers no more keeps no run from its end', async () => {
  const { folder } = stage();
  const [image, mount] = [`${folder}/image`, `${folder}/mount`];
  const sh = (script: string) =>
    execFileSync('sh', ['-ec', script], { stdio: ['ignore', 'ignore', 'inherit'] });
  sh(
    `dd if=/dev/zero of=${image} bs=1M count=8 2>/dev/null; mkfs.ext4 -q ${image}; mkdir ${mount}; mount -o loop ${image} ${mount}`,
  );
  onTestFinished(() => void sh(`fsfreeze -u ${mount}; umount -l ${mount}`));
  const args = ['exec', '-g', 'metrics/frozen', '--node', 'web01', '--metrics-file', `${mount}/runlock.prom`];
  const { status, stderr } = await runlock(agent, [...args, '--', 'fsfreeze', '-f', mount]);
  expect(status).toBe(0);
  expect(stderr).toMatch(
    /could not write [^\n]+: no answer from the file system within 5 s; is its mount dead\?\n$/,
  );
});
