// Who keeps a slot after a run, for how long, and what a run leaves in Consul.
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import type { Stored } from '../support/group.ts';
import { end, eventually, isAlive } from '../support/processes.ts';
import { RUNLOCK, clean } from '../support/program.ts';
import { stage } from '../support/stage.ts';
import { runlock } from '../support/runlock.ts';
import { turnsOf } from '../support/turns.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

const sessions = async () => (await agent.http('GET', '/v1/session/list')).json();

/** All that may be there after a run of `node` that ended well. */
const traces = (...nodes: string[]) => ['.last', ...nodes.map((node) => `.runs/${node}`), '.tail'];

/** Runs until `<folder>/end` is there. */
const untilTold = (folder: string) => [
  'sh',
  '-c',
  `echo $$ >${folder}/command.pid; while ! [ -e ${folder}/end ]; do sleep 0.05; done`,
];

/** Not the tool of that name: a stand-in that ends with the code it is told, as the tool would. */
function standIn(name: string): string {
  const file = `${stage().folder}/${name}`;
  const script = `#!/bin/sh\n# A stand-in, not ${name} itself: it ends as ${name} does, with the code in $CODE.\nexit "$CODE"\n`;
  writeFileSync(file, script, { mode: 0o755 });
  return file;
}

const withCode = (group: string, code: number, args: readonly string[]) =>
  groupOf(agent, group, { env: { CODE: String(code) } }).exec('web01', ...args);

describe('a run that ended well', () => {
  test('leaves its record and the queue’s two marks, and nothing else', async () => {
    expect(await on('good').exec('web01', '--', 'true')).toEqual({ status: 0, stdout: '', stderr: '' });
    expect(await on('good').keys()).toEqual(traces('web01'));
    expect(await sessions()).toEqual([]);
    expect(await on('good').lastRun('web01')).toMatchObject({
      v: 1,
      node: 'web01',
      outcome: 'succeeded',
      exitCode: 0,
      command: 'true',
      slot: 0,
    });
  });

  test('after many runs there is still one record a node, and nothing else', async () => {
    for (const node of ['web01', 'web02', 'web01', 'web02', 'web03'])
      await on('many').exec(node, '--', 'true');
    expect(await on('many').keys()).toEqual(traces('web01', 'web02', 'web03'));
  });

  test('without --node the agent’s own node is the owner', async () => {
    expect((await runlock(agent, ['exec', '-g', 'named', '--', 'true'])).status).toBe(0);
    expect(await on('named').keys()).toEqual(traces(agent.name));
  });
});

describe('a failed run', () => {
  test('keeps the others out: the claim says failed, with the code', async () => {
    expect((await on('failed').exec('web01', '--', 'sh', '-c', 'exit 3')).status).toBe(3);
    const kept = { v: 1, node: 'web01', state: 'failed', exitCode: 3, command: 'sh', hold: 'forever' };
    expect(await on('failed').claim()).toMatchObject(kept);
    expect(await on('failed').claim()).not.toHaveProperty('heldUntil');
    expect(await on('failed').lastRun('web01')).toMatchObject({ outcome: 'failed', exitCode: 3 });
    expect(await on('failed').keys('.slot/')).toEqual(['.slot/0/owner']);
    expect(await sessions()).toEqual([]);
    expect((await on('failed').exec('web02', '-w', '0', '--', 'true')).status).toBe(75);
  });

  test('its node’s next run goes before all who wait, and a good one lets them go on', async () => {
    const { folder, lines } = stage();
    const write = (name: string, code = 0) => [
      '--',
      'sh',
      '-c',
      `echo ${name} >>${folder}/order; exit ${code}`,
    ];
    await on('heal').exec('web01', ...write('broken', 1));
    const waiters = [
      on('heal').start('web02', ...write('web02')),
      on('heal').start('web03', ...write('web03')),
    ];
    await on('heal').waiting(2);
    expect((await on('heal').exec('web01', '-w', '0', ...write('again', 1))).status).toBe(1);
    expect(await on('heal').claim()).toMatchObject({ node: 'web01', state: 'failed' });
    await on('heal').waiting(2);
    expect((await on('heal').exec('web01', '-w', '0', ...write('healed'))).status).toBe(0);
    for (const waiter of waiters) expect((await waiter.ended).status).toBe(0);
    expect(lines('order').slice(0, 3)).toEqual(['broken', 'again', 'healed']);
    expect(lines('order').slice(3).sort()).toEqual(['web02', 'web03']);
    expect(await on('heal').keys()).toEqual(traces('web01', 'web02', 'web03'));
  });

  const saySlot = ['--', 'sh', '-c', 'echo $RUNLOCK_RUN_SLOT'];

  test('its node takes back the very slot it had, where that is below its --slots', async () => {
    const { end: free } = await on('slotted').hold('web02', '-n', '2');
    await on('slotted').exec('web01', '-n', '2', '--', 'false');
    expect(await on('slotted').claim(1)).toMatchObject({ node: 'web01', state: 'failed' });
    const back = await on('slotted').exec('web01', '-n', '2', '-w', '0', ...saySlot);
    expect(back).toMatchObject({ status: 0, stdout: '1\n' });
    await free();
    expect(await on('slotted').keys()).toEqual(traces('web01', 'web02'));
  });

  // It took back slot 1 whatever its --slots: with -n 1 it then ran beside another run with -n 1.
  test('with smaller --slots its node moves its claim down, and waits for that as the first would', async () => {
    const { end: free } = await on('down').hold('web02', '-n', '2');
    await on('down').exec('web01', '-n', '2', '--', 'false');
    const early = await on('down').exec('web01', '-w', '0', '--', 'true');
    expect(early).toMatchObject({
      status: 75,
      stderr: expect.stringMatching(/slot 0: web02 running/) as string,
    });
    const [back, again] = [on('down').start('web01', ...saySlot), on('down').start('web03', ...saySlot)];
    await on('down').waiting();
    await eventually(async () => expect(await agent.kv.get('runlock/down/.node/web01')).toBeDefined());
    // Without --wait 0 it would wait for its node's turn.
    expect((await on('down').exec('web01', '-v', '-w', '0', '--', 'true')).stderr).toMatch(
      /web01 is already running or queued/,
    );
    await free();
    expect(await back.ended).toMatchObject({ status: 0, stdout: '0\n' });
    expect((await again.ended).status).toBe(0);
    expect(await on('down').keys()).toEqual(traces('web01', 'web02', 'web03'));
  });

  test('while its claim waits to move down, or for a thaw, status shows that and what it waits for', async () => {
    const { end: free } = await on('shown').hold('web02', '-n', '2');
    await on('shown').exec('web01', '-n', '2', '--', 'false');
    const down = on('shown').start('web01', '--', 'true');
    const shows = (text: RegExp) =>
      eventually(async () => expect((await runlock(agent, ['status', 'shown'])).stdout).toMatch(text));
    await shows(/RETURNS +WAITING +WHY\n +web01 +\d+s +slot 1 is beyond the run's --slots/);
    await free();
    expect((await down.ended).status).toBe(0);
    await on('shown').exec('web01', '--', 'false');
    await runlock(agent, ['freeze', 'shown', '--reason', 'new disks']);
    const frozen = on('shown').start('web01', '--', 'true');
    await shows(/RETURNS +WAITING +WHY\n +web01 +\d+s +takes slot 0 back when the freeze ends/);
    expect((await on('shown').exec('web01', '-v', '-w', '0', '--', 'true')).stderr).toMatch(
      /web01 is already running or queued/,
    );
    await runlock(agent, ['thaw', 'shown']);
    expect((await frozen.ended).status).toBe(0);
    expect(await on('shown').keys()).toEqual(traces('web01', 'web02'));
  });

  test('its claim keeps out whoever comes with smaller --slots, wherever it stands', async () => {
    const { end: free } = await on('beyond').hold('web02', '-n', '2');
    await on('beyond').exec('web01', '-n', '2', '--', 'false');
    await free();
    const small = await on('beyond').exec('web03', '-w', '0', '--', 'true');
    expect(small).toMatchObject({
      status: 75,
      stderr: expect.stringMatching(/slot 1: web01 failed/) as string,
    });
    expect(small.stderr).not.toMatch(/: free/);
    const waiting = await on('beyond').exec('web03', '-v', '-w', '1s', '--', 'true');
    expect(waiting.stderr).toMatch(/web03 is waiting for a slot of beyond \(slot 1: web01 failed/);
    expect((await on('beyond').exec('web03', '-n', '2', '-w', '0', ...saySlot)).stdout).toBe('0\n');
    expect((await on('beyond').exec('web01', '-w', '0', ...saySlot)).stdout).toBe('0\n');
    expect((await on('beyond').exec('web03', '-w', '0', '--', 'true')).status).toBe(0);
  });

  test('past its hold a claim beyond its --slots is cleared by whoever comes', async () => {
    const { end: free } = await on('passed').hold('web02', '-n', '2');
    await on('passed').exec('web01', '-n', '2', '--hold', '100ms', '--', 'false');
    await free();
    expect((await on('passed').exec('web03', '-w', '30s', ...saySlot)).stdout).toBe('0\n');
    expect(await on('passed').keys()).toEqual(traces('web01', 'web02', 'web03'));
  });

  test('two nodes whose claims both stand too high do not wait for each other', async () => {
    const { end: free } = await on('both').hold('web03', '-n', '3');
    const { end: others } = await on('both').hold('web02', '-n', '3');
    await on('both').exec('web01', '-n', '3', '--', 'false');
    await others();
    await on('both').exec('web02', '-n', '3', '--', 'false');
    expect(await on('both').claim(2)).toMatchObject({ node: 'web01', state: 'failed' });
    expect(await on('both').claim(1)).toMatchObject({ node: 'web02', state: 'failed' });
    const runs = [on('both').start('web01', ...saySlot), on('both').start('web02', ...saySlot)];
    for (const node of ['web01', 'web02'])
      await eventually(async () => expect(await agent.kv.get(`runlock/both/.node/${node}`)).toBeDefined());
    await free();
    for (const run of runs) expect(await run.ended).toMatchObject({ status: 0, stdout: '0\n' });
  });

  test('cleared by an operator: the first who waits goes on', async () => {
    const { folder, lines } = stage();
    await on('cleared').exec('web01', '--', 'false');
    const waiter = on('cleared').start('web02', '--', 'sh', '-c', `echo >>${folder}/started`);
    await on('cleared').waiting();
    expect(lines('started')).toEqual([]);
    expect((await runlock(agent, ['release', 'cleared', '--owner', 'web01'])).status).toBe(0);
    expect((await waiter.ended).status).toBe(0);
    expect(lines('started')).toHaveLength(1);
  });

  test('--hold 2s: others follow after it and 5 s for the clocks, not before', async () => {
    expect((await on('held').exec('web01', '--hold', '2s', '--', 'false')).status).toBe(1);
    const kept = await on('held').claim();
    expect(kept).toMatchObject({ state: 'failed', hold: 2_000 });
    const heldUntil = Date.parse(String(kept?.['heldUntil']));
    expect((await on('held').exec('web02', '-w', '0', '--', 'true')).status).toBe(75);
    const next = await on('held').exec('web02', '-w', '30s', '--', 'date', '+%s%3N');
    expect(next.status).toBe(0);
    expect(Number(next.stdout)).toBeGreaterThanOrEqual(heldUntil + 5_000);
    expect(Number(next.stdout)).toBeLessThan(heldUntil + 9_000);
    expect(await on('held').keys()).toEqual(traces('web01', 'web02'));
  });

  test('--hold none: nothing keeps the others out', async () => {
    expect((await on('none').exec('web01', '--hold', 'none', '--', 'false')).status).toBe(1);
    expect(await on('none').keys()).toEqual(traces('web01'));
    expect(await on('none').lastRun('web01')).toMatchObject({ outcome: 'failed', exitCode: 1 });
    expect((await on('none').exec('web02', '-w', '0', '--', 'true')).status).toBe(0);
  });

  /** A run of web01 that TERM ends. */
  async function stopped(group: string, ...options: string[]) {
    const { folder, pid } = stage();
    const run = on(group).start('web01', ...options, '--', ...untilTold(folder));
    await pid('command');
    run.signal('SIGTERM');
    const ended = await run.ended;
    expect(ended.status).toBe(143);
    expect(await on(group).lastRun('web01')).toMatchObject({ outcome: 'interrupted', exitCode: 143 });
    return ended;
  }

  test('one that a signal ended half-way keeps others out; the node’s next run takes it back', async () => {
    const { stderr } = await stopped('stopped');
    expect(stderr).toMatch(
      /^runlock: sh was interrupted and exited 143 after \d+s; web01 still holds slot 0 of stopped until a run succeeds\n$/,
    );
    expect(await on('stopped').claim()).toMatchObject({ state: 'interrupted', node: 'web01', exitCode: 143 });
    expect((await on('stopped').exec('web02', '-w', '0', '--', 'true')).status).toBe(75);
    const status = await runlock(agent, ['status', 'stopped']);
    expect(status.stdout).toMatch(
      /slot 0: web01 was interrupted by a signal \d+s ago \(sh, exit 143\) and holds the slot until a run succeeds or the claim is cleared/,
    );
    expect(status.stdout).toContain(
      'next: wait for the next run of web01, which takes the slot back, or start a run on web01',
    );
    // A command that clears what is half done is nothing to paste.
    expect(status.stdout).not.toContain('fix:');
    const check = await runlock(agent, ['status', '--check', 'stopped']);
    expect(check).toMatchObject({
      status: 1,
      stdout: expect.stringContaining('web01, interrupted') as string,
    });
    expect((await on('stopped').exec('web01', '-w', '0', '--', 'true')).status).toBe(0);
    expect(await on('stopped').keys()).toEqual(traces('web01'));
  });

  test('what a signal ended is cleared as what has failed is, without --force', async () => {
    await stopped('stopped-cleared');
    const cleared = await runlock(agent, ['release', 'stopped-cleared', '--owner', 'web01']);
    expect(cleared).toMatchObject({ status: 0 });
    expect(cleared.stdout).toContain('cleared the interrupted claim of web01 on slot 0');
    expect((await on('stopped-cleared').exec('web02', '-w', '0', '--', 'true')).status).toBe(0);
  });

  test('what a signal ended is kept for --hold, and not at all with none', async () => {
    await stopped('stopped-hold', '--hold', '1h');
    const { heldUntil, since } = (await on('stopped-hold').claim()) as Stored & {
      heldUntil: string;
      since: string;
    };
    expect(Date.parse(heldUntil) - Date.parse(since)).toBe(3_600_000);
    await stopped('stopped-none', '--hold', 'none');
    expect(await on('stopped-none').keys()).toEqual(traces('web01'));
  });

  test('--release-on-signal: a signal gives the slot back; a failure does not', async () => {
    expect((await stopped('let-go', '--release-on-signal')).stderr).toBe('');
    expect(await on('let-go').keys()).toEqual(traces('web01'));
    await on('let-go').exec('web01', '--release-on-signal', '--', 'false');
    expect(await on('let-go').claim()).toMatchObject({ state: 'failed' });
  });

  test('a command that ends well though a signal was passed on has ended well', async () => {
    const { folder, pid } = stage();
    const script = `trap 'exit 0' TERM; echo $$ >${folder}/command.pid; while :; do sleep 0.05; done`;
    const run = on('ends-well').start('web01', '--', 'sh', '-c', script);
    await pid('command');
    run.signal('SIGTERM');
    expect((await run.ended).status).toBe(0);
    expect(await on('ends-well').keys()).toEqual(traces('web01'));
    expect(await on('ends-well').lastRun('web01')).toMatchObject({ outcome: 'succeeded' });
  });

  test('one that ran too long has failed', async () => {
    const args = ['--timeout', '200ms', '--kill-after', '1s', '--', 'sleep', '300'];
    expect((await on('long').exec('web01', ...args)).status).toBe(124);
    expect(await on('long').claim()).toMatchObject({ state: 'failed', node: 'web01' });
    expect(await on('long').lastRun('web01')).toMatchObject({ outcome: 'timed-out' });
  });
});

describe('rubbish in the queue’s marks', () => {
  test.each(['.tail', '.last'])(
    '(%s) is named by status --check, and stops nobody: the next run mends it',
    async (name) => {
      const group = `rubbish${name}`;
      const key = `runlock/${group}/${name}`;
      await agent.kv.put(key, 'rubbish');
      const check = await runlock(agent, ['status', group, '--check']);
      expect(check.status).toBe(1);
      expect(check.stdout).toContain(
        `check the value with 'consul kv get ${key}', and delete the key if no run needs it`,
      );
      const { end: free } = await on(group).hold('web01');
      await agent.kv.put(key, 'rubbish');
      const runs = [on(group).start('web02', '--', 'true')];
      await on(group).waiting();
      runs.push(on(group).start('web03', '--', 'true'));
      await on(group).waiting(2);
      await agent.kv.put(key, 'rubbish');
      await free();
      for (const run of runs) expect((await run.ended).status).toBe(0);
      expect((await on(group).exec('web04', '--', 'true')).status).toBe(0);
      expect((await runlock(agent, ['status', group, '--check'])).status).toBe(0);
    },
  );

  test.each(['.tail', '.last'])(
    '(%s) of a newer runlock is no rubbish: nobody goes on by a guess',
    async (name) => {
      const group = `newer${name}`;
      await agent.kv.put(`runlock/${group}/${name}`, JSON.stringify({ v: 99, session: 's' }));
      const { status, stderr } = await on(group).exec('web01', '--', 'true');
      expect(status).toBe(78);
      expect(stderr).toMatch(/queue mark was written by a newer runlock/);
    },
  );
});

test('a run of the same name on another machine is said as a warning, with the way out', async () => {
  const { end: free } = await on('twice').hold('web01');
  const key = 'runlock/twice/.slot/0/owner';
  const there = { ...(await on('twice').claim()), machine: 'b'.repeat(32), host: 'host-b', bootId: 'other' };
  const own = await on('twice').claim();
  expect(own).toMatchObject({ host: hostname() });
  const lock = (await agent.kv.get('runlock/twice/.slot/0/lock'))?.Session ?? '';
  await agent.kv.put(key, JSON.stringify(there));
  expect(lock).not.toBe('');
  // Another machine has turns of its own.
  const { status, stderr } = await runlock(agent, on('twice').words('web01', '--', 'true'), {
    env: turnsOf('another machine'),
  });
  expect(status).toBe(75);
  expect(stderr).toMatch(
    /^runlock: busy: another host \(host-b\) is running or queued in twice as web01 \(pid \d+, for \d+s\)\. Wait for that run to end, or check that nothing is running there and run 'runlock release twice --owner web01' \(asks for confirmation\)\. If this host is a different node, give it its own name with --node\n$/,
  );
  await free();
});

describe('a run whose session is gone', () => {
  /** What a run says of the group's slot. */
  const claimKey = (group: string) => `runlock/${group}/.slot/0/owner`;

  async function endSessions(group: string) {
    for (const session of (await sessions()) as { ID: string; Name: string }[])
      if (session.Name === `runlock ${group}`) await agent.http('PUT', `/v1/session/destroy/${session.ID}`);
  }

  test('is marked by the first who comes, once, also with --wait 0; 65 s later others may follow', async () => {
    const { folder, pid } = stage();
    const run = on('gone').start('web01', '--hold', 'none', '--', ...untilTold(folder));
    const command = await pid('command');
    run.signal('SIGKILL');
    await eventually(() => expect(isAlive(command)).toBe(false));
    await endSessions('gone');
    const none = ['-w', '0', '--hold', 'none', '--', 'true'];
    expect((await on('gone').exec('web02', ...none)).status).toBe(75);
    const marked = await agent.kv.get(claimKey('gone'));
    expect(await on('gone').claim()).toMatchObject({
      node: 'web01',
      state: 'running',
      missingSince: expect.any(String) as string,
    });
    expect((await on('gone').exec('web03', ...none)).status).toBe(75);
    expect((await agent.kv.get(claimKey('gone')))?.ModifyIndex).toBe(marked?.ModifyIndex);
    const earlier = new Date(Date.now() - 66_000).toISOString();
    await agent.kv.put(
      claimKey('gone'),
      JSON.stringify({ ...(await on('gone').claim()), missingSince: earlier }),
    );
    expect((await on('gone').exec('web02', ...none)).status).toBe(0);
  });

  test('is marked also by whoever gets another slot at once', async () => {
    const { folder, pid } = stage();
    const run = on('beside').start('web01', '--', ...untilTold(folder));
    const command = await pid('command');
    run.signal('SIGKILL');
    await eventually(() => expect(isAlive(command)).toBe(false));
    await endSessions('beside');
    expect((await on('beside').exec('web02', '-n', '2', '-w', '0', '--', 'true')).status).toBe(0);
    expect(await on('beside').claim()).toMatchObject({ missingSince: expect.any(String) as string });
  });

  test('and that still runs takes its lock back, and the mark goes', async () => {
    const { folder, pid } = stage();
    const run = on('marked').start('web01', '--', ...untilTold(folder));
    await pid('command');
    const waiter = on('marked').start('web02', '--', 'true');
    await on('marked').waiting();
    const before = (await agent.kv.get('runlock/marked/.slot/0/lock'))?.Session ?? '';
    await agent.http('PUT', `/v1/session/destroy/${before}`);
    await eventually(async () =>
      expect(await on('marked').claim()).toMatchObject({ state: 'running', returns: 1 }),
    );
    expect(await on('marked').claim()).not.toHaveProperty('missingSince');
    writeFileSync(`${folder}/end`, '');
    expect((await run.ended).status).toBe(0);
    expect((await waiter.ended).status).toBe(0);
  });
});

describe('what the tools mean by their codes', () => {
  test.each([
    ['chef-client', 0, [], 'succeeded'],
    ['chef-client', 213, [], 'succeeded'],
    ['cinc-client', 213, [], 'succeeded'],
    ['chef-client', 1, [], 'failed'],
    ['chef-client', 35, [], 'rebooting'],
    ['chef-client', 37, [], 'rebooting'],
    ['chef-client', 41, [], 'failed'],
    ['puppet', 2, ['agent', '--detailed-exitcodes'], 'succeeded'],
    ['puppet', 2, ['agent', '--test'], 'succeeded'],
    ['puppet', 2, ['agent', '-t'], 'succeeded'],
    ['puppet', 2, ['agent'], 'failed'],
    ['puppet', 4, ['agent', '--detailed-exitcodes'], 'failed'],
    ['puppet', 6, ['agent', '--detailed-exitcodes'], 'failed'],
    ['ansible-playbook', 2, ['site.yml'], 'failed'],
    ['anything-else', 213, [], 'failed'],
  ])('%s that ends with %i (%j) has %s', async (tool, code, args, outcome) => {
    const group = `tools/${tool}-${code}-${args.join('')}`;
    expect((await withCode(group, code, ['--', standIn(tool), ...args])).status).toBe(code);
    expect(await on(group).lastRun('web01')).toMatchObject({ outcome, exitCode: code, command: tool });
    const kept = { failed: 'failed', rebooting: 'rebooting', succeeded: undefined }[outcome];
    expect((await on(group).claim())?.['state']).toBe(kept);
  });

  test('a node that reboots keeps its slot until it is back and well', async () => {
    const chef = standIn('chef-client');
    await withCode('reboot', 35, ['--', chef]);
    expect(await on('reboot').claim()).toMatchObject({ node: 'web01', state: 'rebooting', exitCode: 35 });
    expect((await on('reboot').exec('web02', '-w', '0', '--', 'true')).status).toBe(75);
    expect((await withCode('reboot', 0, ['-w', '0', '--', chef])).status).toBe(0);
    expect((await on('reboot').exec('web02', '-w', '0', '--', 'true')).status).toBe(0);
  });

  test('what a node that reboots has left running lives on, and does not keep it away', async () => {
    const { folder, pid } = stage();
    const left = `sleep 300 >/dev/null 2>&1 </dev/null & echo $! >${folder}/left.pid; exit 35`;
    const args = ['--reboot-codes', '35', '--', 'sh', '-c', left];
    expect((await on('leaves').exec('web01', ...args)).status).toBe(35);
    expect(await on('leaves').claim()).toMatchObject({ state: 'rebooting' });
    expect(isAlive(await pid('left'))).toBe(true);
    expect(await on('leaves').exec('web01', '-w', '0', '--', 'true')).toMatchObject({
      status: 0,
      stderr: '',
    });
    expect(isAlive(await pid('left'))).toBe(true);
  });

  test('with --hold none not even a node that reboots keeps its slot', async () => {
    await withCode('reboot-none', 35, ['--hold', 'none', '--', standIn('chef-client')]);
    expect(await on('reboot-none').keys()).toEqual(traces('web01'));
    expect(await on('reboot-none').lastRun('web01')).toMatchObject({ outcome: 'rebooting', exitCode: 35 });
  });

  test('--ok-codes and --reboot-codes go before what is known of the tool', async () => {
    const chef = standIn('chef-client');
    await withCode('ok-codes', 7, ['--ok-codes', '0,7', '--', chef]);
    expect(await on('ok-codes').lastRun('web01')).toMatchObject({ outcome: 'succeeded', exitCode: 7 });
    await withCode('ok-codes', 213, ['--ok-codes', '0,7', '--', chef]);
    expect(await on('ok-codes').lastRun('web01')).toMatchObject({ outcome: 'failed', exitCode: 213 });
    await withCode('reboot-codes', 9, ['--reboot-codes', '9', '--', chef]);
    expect(await on('reboot-codes').claim()).toMatchObject({ state: 'rebooting', exitCode: 9 });
    await withCode('reboot-codes', 35, ['--reboot-codes', '9', '--', chef]);
    expect(await on('reboot-codes').claim()).toMatchObject({ state: 'failed', exitCode: 35 });
  });
});

describe('what the command is told', () => {
  test('its group, node, slot, run and token, and that a lock is held', async () => {
    const names = ['RUN_GROUP', 'RUN_NODE', 'RUN_SLOT', 'RUN_ID', 'FENCING_TOKEN'].map(
      (name) => `$RUNLOCK_${name}`,
    );
    const args = ['--', 'sh', '-c', `echo "${names.join(' ')} $CONSUL_LOCK_HELD"`];
    const { stdout } = await on('told/web').exec('web01', ...args);
    const [group, node, slot, run, token, held] = stdout.trim().split(' ');
    expect([group, node, slot, held]).toEqual(['told/web', 'web01', '0', 'true']);
    expect(Number(token)).toBeGreaterThan(0);
    expect(await on('told/web').lastRun('web01')).toMatchObject({ run });
  });

  test('nothing that a runlock inside would take for its own options; what else there is stays', async () => {
    const options = {
      ...{
        RUNLOCK_GROUP: 'told/one,told/two',
        RUNLOCK_NODE: 'web01',
        RUNLOCK_WAIT: '1m',
        RUNLOCK_OK_CODES: '',
      },
      ...{ RUNLOCK_QUIET: '1', RUNLOCK_LOG_FORMAT: 'json', RUNLOCK_PREFIX: 'runlock', RUNLOCK_FORCE: '1' },
    };
    const others = { CONSUL_HTTP_TOKEN: 'anonymous', RUNLOCK_OF_MINE: 'stays', RUNLOCK: 'x' };
    const { stdout } = await runlock(agent, ['exec', '--', 'env'], { env: { ...options, ...others } });
    const env = stdout.split('\n').filter((line) => /^(?:RUNLOCK|CONSUL_(?:LOCK|HTTP_TOKEN))/.test(line));
    expect(env.map((line) => line.replace(/^(RUNLOCK_RUN_(?:ID|MARK)|.*TOKEN)=.*$/, '$1')).sort()).toEqual(
      expect.arrayContaining([
        ...[
          'CONSUL_HTTP_TOKEN',
          'CONSUL_LOCK_HELD=true',
          'RUNLOCK=x',
          'RUNLOCK_FENCING_TOKEN',
          'RUNLOCK_OF_MINE=stays',
        ],
        ...[
          'RUNLOCK_RUN_GROUP=told/one,told/two',
          'RUNLOCK_RUN_ID',
          'RUNLOCK_RUN_NODE=web01',
          'RUNLOCK_RUN_SLOT=0,0',
        ],
      ]),
    );
    const names = env.map((line) => line.split('=')[0] ?? '');
    expect(names.filter((name) => name in options || name === 'RUNLOCK_CONFIG')).toEqual([]);
  });

  test('a run inside, in a group of its own, is told its own, and nothing of the outer one', async () => {
    const show = 'echo "$RUNLOCK_RUN_GROUP $RUNLOCK_RUN_NODE $RUNLOCK_RUN_SLOT $RUNLOCK_RUN_ID"';
    const inner = `${show}; ${RUNLOCK} exec -g told/inner --node web09 -- sh -c '${show}'; ${show}`;
    const { status, stdout } = await on('told/outer').exec('web01', '--', 'sh', '-c', inner);
    const [before = '', inside = '', after] = stdout.trim().split('\n');
    expect(status).toBe(0);
    expect(before).toMatch(/^told\/outer web01 0 [0-9a-f-]{36}$/);
    expect(inside).toMatch(/^told\/inner web09 0 [0-9a-f-]{36}$/);
    expect(inside.split(' ').at(-1)).not.toBe(before.split(' ').at(-1));
    expect(after).toBe(before);
  });

  test('its arguments, its stdin, its stdout and its stderr are its own', async () => {
    const args = [
      '--',
      'sh',
      '-c',
      'cat; printf "<%s>" "$@"; echo err >&2; pwd',
      '$0',
      'a b',
      '*',
      '$HOME',
      '',
      '--',
      '-g',
    ];
    const options = { input: 'from stdin\n', cwd: '/usr' };
    const result = await runlock(agent, on('own').words('web01', ...args), options);
    expect(result).toEqual({
      status: 0,
      stdout: 'from stdin\n<a b><*><$HOME><><--><-g>/usr\n',
      stderr: 'err\n',
    });
  });

  test('options after the command’s name are the command’s, with or without --', async () => {
    const result = await runlock(agent, ['exec', '-g', 'own', 'echo', '-g', 'other', '--dry-run']);
    expect(result).toMatchObject({ status: 0, stdout: '-g other --dry-run\n' });
  });

  test('the fencing tokens of a slot only grow', async () => {
    const token = async (node: string, code: number) =>
      Number(
        (await on('fence').exec(node, '--', 'sh', '-c', `echo $RUNLOCK_FENCING_TOKEN; exit ${code}`)).stdout,
      );
    const tokens = [
      await token('web01', 0),
      await token('web02', 1),
      await token('web02', 1),
      await token('web02', 0),
    ];
    await on('fence').exec('web01', '--', 'false');
    await runlock(agent, ['release', 'fence', '--owner', 'web01']);
    tokens.push(await token('web03', 0));
    expect(tokens.every((value, i) => value > (tokens[i - 1] ?? 0))).toBe(true);
  });
});

test('only the command’s base name is stored, no argument, while it waits, runs or has failed', async () => {
  const { folder, pid } = stage();
  const secret = 'hunter2-secret';
  const script = `echo $$ >${folder}/command.pid; while ! [ -e ${folder}/end ]; do sleep 0.05; done; exit 1`;
  const run = on('secret').start('web01', '--', '/bin/sh', '-c', script, `--password=${secret}`);
  await pid('command');
  const waiter = on('secret').start('web02', '--', '/bin/echo', secret);
  await on('secret').waiting();
  const everything = async () => JSON.stringify([await agent.kv.tree(), await sessions()]);
  const seen = [await everything()];
  writeFileSync(`${folder}/end`, '');
  expect((await run.ended).status).toBe(1);
  seen.push(await everything());
  await runlock(agent, ['release', 'secret', '--owner', 'web01']);
  expect((await waiter.ended).stdout).toBe(`${secret}\n`);
  seen.push(await everything());
  for (const text of seen) expect(text).not.toMatch(/hunter2|\/bin\/|password/);
  expect(await on('secret').lastRun('web01')).toMatchObject({ command: 'sh' });
  expect(await on('secret').lastRun('web02')).toMatchObject({ command: 'echo' });
});

describe('groups, prefixes and slots', () => {
  test('prod, prod/web and pro do not collide', async () => {
    const { end: free } = await on('prod').hold('web01');
    const { end: freeBelow } = await on('prod/web').hold('web01', '-w', '0');
    expect((await on('pro').exec('web01', '-w', '0', '--', 'true')).status).toBe(0);
    expect((await on('prod').exec('web02', '-w', '0', '--', 'true')).status).toBe(75);
    expect((await on('prod/web').exec('web02', '-w', '0', '--', 'true')).status).toBe(75);
    await free();
    expect((await on('prod').exec('web02', '-w', '0', '--', 'true')).status).toBe(0);
    expect((await on('prod/web').exec('web02', '-w', '0', '--', 'true')).status).toBe(75);
    await freeBelow();
  });

  test('--prefix is another world, and everything of the run is in it', async () => {
    await on('world').exec('web01', '--', 'false');
    const before = await agent.kv.tree('runlock/');
    const args = ['--prefix', 'ops/locks', '-w', '0', '--', 'true'];
    expect((await on('world').exec('web02', ...args)).status).toBe(0);
    expect(await agent.kv.tree('runlock/')).toEqual(before);
    expect(await agent.kv.keys('ops/')).toEqual(
      ['.last', '.runs/web02', '.tail'].map((key) => `ops/locks/world/${key}`),
    );
  });

  test('-n 2: two at once and never three; a caller with three has a third', async () => {
    const slot = ['-w', '0', '--', 'sh', '-c', 'echo $RUNLOCK_RUN_SLOT'];
    const first = await on('two').hold('web01', '-n', '2');
    const second = await on('two').hold('web02', '-n', '2', '-w', '0');
    expect((await on('two').exec('web03', '-n', '2', ...slot)).status).toBe(75);
    expect((await on('two').exec('web03', '-n', '1', ...slot)).status).toBe(75);
    expect(await on('two').exec('web03', '-n', '3', ...slot)).toMatchObject({ status: 0, stdout: '2\n' });
    await first.end();
    // Slot 0 is free, and yet one is taken: this once let two run of which one had asked to be alone.
    expect((await on('two').exec('web03', '-n', '1', ...slot)).status).toBe(75);
    expect(await on('two').exec('web03', '-n', '2', ...slot)).toMatchObject({ status: 0, stdout: '0\n' });
    await second.end();
    expect(await on('two').exec('web03', '-n', '1', ...slot)).toMatchObject({ status: 0, stdout: '0\n' });
    expect(await on('two').keys()).toEqual(traces('web01', 'web02', 'web03'));
  });

  test('a failed run takes one slot of two, and the other goes on', async () => {
    await on('half').exec('web01', '-n', '2', '--', 'false');
    for (const node of ['web02', 'web03']) {
      expect((await on('half').exec(node, '-n', '2', '-w', '0', '--', 'true')).status).toBe(0);
    }
    expect((await on('half').exec('web02', '-w', '0', '--', 'true')).status).toBe(75);
  });
});

test('a killed runlock that nobody waited for is dead: its node’s next run takes the claim back', async () => {
  const { folder, pid } = stage();
  const command = `sh -c 'echo $$ >${folder}/command.pid; exec sleep 60'`;
  // Its parent is stopped, as one that never waits for its children: the first process of a container, say.
  const script = `"$0" exec -g zombie --node web01 -- ${command} & echo $! >${folder}/runlock.pid; kill -STOP $$`;
  const parent = spawn('sh', ['-c', script, RUNLOCK], { env: { ...clean, ...agent.env }, stdio: 'ignore' });
  onTestFinished(() => end(parent.pid ?? 0));
  await pid('command');
  const killed = await pid('runlock');
  process.kill(killed, 'SIGKILL');
  await eventually(() => expect(readFileSync(`/proc/${killed}/stat`, 'utf8')).toContain(') Z '));
  expect(await on('zombie').exec('web01', '-w', '0', '--', 'true')).toEqual({
    status: 0,
    stdout: '',
    stderr: '',
  });
  expect(readFileSync(`/proc/${killed}/stat`, 'utf8')).toContain(') Z ');
});
