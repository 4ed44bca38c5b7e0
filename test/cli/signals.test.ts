// What a signal to runlock does to the command, to the queue and to the slot.
import { readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { eventually, isAlive } from '../support/processes.ts';
import { stage } from '../support/stage.ts';
import { runlock } from '../support/runlock.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

const sessions = async () => (await agent.http('GET', '/v1/session/list')).json();

/** Runs until `<folder>/end` is there. */
const untilTold = (folder: string) => [
  'sh',
  '-c',
  `echo $$ >${folder}/command.pid; while ! [ -e ${folder}/end ]; do sleep 0.05; done`,
];

/** Writes a line for each signal that it gets, and so does its child; both end when `<folder>/end` is there. */
const COUNTER = `
import { spawn } from 'node:child_process';
import { appendFileSync, existsSync } from 'node:fs';
const [folder, name] = process.argv.slice(2);
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'])
  process.on(signal, () => appendFileSync(folder + '/' + name, signal + '\\n'));
if (name === 'command') spawn(process.execPath, [process.argv[1], folder, 'child'], { stdio: 'inherit' });
appendFileSync(folder + '/' + name + '.pid', process.pid + '\\n');
setInterval(() => existsSync(folder + '/end') && process.exit(0), 20);
`;

describe('each signal reaches the command’s whole group, once', () => {
  test.each<NodeJS.Signals>(['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'])(
    '%s',
    async (signal) => {
      const { folder, pid, lines } = stage();
      writeFileSync(`${folder}/counter.mjs`, COUNTER);
      const command = [process.execPath, `${folder}/counter.mjs`, folder, 'command'];
      const run = on(`once-${signal}`).start('web01', '--kill-after', '30s', '--', ...command);
      await Promise.all([pid('command'), pid('child')]);
      run.signal(signal);
      await eventually(() => expect([...lines('command'), ...lines('child')]).toHaveLength(2));
      writeFileSync(`${folder}/end`, '');
      // The command dealt with it and ended well, so that is what it did.
      expect(await run.ended).toEqual({ status: 0, stdout: '', stderr: '' });
      expect(lines('command')).toEqual([signal]);
      expect(lines('child')).toEqual([signal]);
    },
  );

  test('several, one after the other, in their order', async () => {
    const { folder, pid, lines } = stage();
    writeFileSync(`${folder}/counter.mjs`, COUNTER);
    const command = [process.execPath, `${folder}/counter.mjs`, folder, 'command'];
    const run = on('several').start('web01', '--kill-after', '30s', '--', ...command);
    await Promise.all([pid('command'), pid('child')]);
    const sent: NodeJS.Signals[] = ['SIGUSR1', 'SIGUSR2', 'SIGUSR1', 'SIGHUP', 'SIGTERM', 'SIGTERM'];
    for (const [i, signal] of sent.entries()) {
      run.signal(signal);
      await eventually(() => expect(lines('child')).toHaveLength(i + 1));
      await eventually(() => expect(lines('command')).toHaveLength(i + 1));
    }
    writeFileSync(`${folder}/end`, '');
    expect((await run.ended).status).toBe(0);
    expect(lines('command')).toEqual(sent);
    expect(lines('child')).toEqual(sent);
  });
});

/** Else the node would keep its slot. */
const RELEASE = '--release-on-signal';

describe('TERM ends the run', () => {
  /** Ignores TERM, with a child in its group and one in a session of its own, which ignore it too. */
  const stubborn = (folder: string) => [
    'sh',
    '-c',
    `trap '' TERM; sleep 300 & echo $! >${folder}/child.pid; setsid sh -c 'echo $$ >${folder}/grandchild.pid; exec sleep 301' & echo $$ >${folder}/command.pid; while :; do wait; done`,
  ];
  const names = ['command', 'child', 'grandchild'];

  /** Writes down who of the earlier run is alive while the slot is already another's. */
  const look = (folder: string) => [
    'sh',
    '-c',
    `for name in ${names.join(' ')}; do grep -qs '^State:.[^ZX]' /proc/$(cat ${folder}/$name.pid)/status && echo $name >>${folder}/overlap; done; echo >>${folder}/next`,
  ];

  test('what ignores it is killed --kill-after later, and the slot is given back only then', async () => {
    const { folder, pid, lines } = stage();
    const run = on('stubborn').start('web01', '--kill-after', '1s', RELEASE, '--', ...stubborn(folder));
    const tree = await Promise.all(names.map((name) => pid(name)));
    const next = on('stubborn').start('web02', '--', ...look(folder));
    await on('stubborn').waiting();
    const toldMs = performance.now();
    run.signal('SIGTERM');
    expect((await run.ended).status).toBe(137);
    expect(performance.now() - toldMs).toBeGreaterThan(1_000);
    expect((await next.ended).status).toBe(0);
    expect(lines('next')).toHaveLength(1);
    expect(lines('overlap')).toEqual([]);
    expect(tree.filter(isAlive)).toEqual([]);
  });

  test('nobody is killed before --kill-after: a command has the time to end by itself', async () => {
    const { folder, pid, lines } = stage();
    const script = `trap 'sleep 0.7; echo done >>${folder}/cleaned; exit 5' TERM; echo $$ >${folder}/command.pid; while :; do sleep 0.05; done`;
    const run = on('clean').start('web01', '--kill-after', '20s', '--', 'sh', '-c', script);
    await pid('command');
    run.signal('SIGTERM');
    expect((await run.ended).status).toBe(5);
    expect(lines('cleaned')).toEqual(['done']);
    expect(await on('clean').lastRun('web01')).toMatchObject({ outcome: 'interrupted', exitCode: 5 });
  });

  test('a child that outlives its interrupted parent is killed before the slot is given back', async () => {
    const { folder, pid, lines } = stage();
    const script = `setsid sh -c 'trap "" TERM; echo $$ >${folder}/grandchild.pid; while :; do sleep 0.1; done' & echo $$ >${folder}/command.pid; echo $$ >${folder}/child.pid; wait`;
    const run = on('left').start('web01', '--kill-after', '500ms', RELEASE, '--', 'sh', '-c', script);
    const grandchild = await pid('grandchild');
    await pid('child');
    const next = on('left').start('web02', '--', ...look(folder));
    await on('left').waiting();
    run.signal('SIGTERM');
    expect((await run.ended).status).toBe(143);
    expect((await next.ended).status).toBe(0);
    expect(lines('overlap')).toEqual([]);
    expect(isAlive(grandchild)).toBe(false);
  });

  test.each<NodeJS.Signals>(['SIGTERM', 'SIGINT', 'SIGHUP'])(
    'after %s only its claim stays, as interrupted: its node comes back, others wait',
    async (signal) => {
      const { folder, pid } = stage();
      const group = `interrupted-${signal}`;
      const run = on(group).start('web01', '--', ...untilTold(folder));
      await pid('command');
      run.signal(signal);
      const status = 128 + constants.signals[signal];
      expect(await run.ended).toMatchObject({ status, stdout: '' });
      expect(await on(group).keys()).toEqual(['.last', '.runs/web01', '.slot/0/owner', '.tail']);
      expect(await on(group).lastRun('web01')).toMatchObject({ outcome: 'interrupted', exitCode: status });
      expect(await sessions()).toEqual([]);
      const now = (node: string) =>
        runlock(agent, ['exec', '-g', group, '--node', node, '-w', '0', '--', 'true']);
      expect((await now('web02')).status).toBe(75);
      expect((await now('web01')).status).toBe(0);
      expect((await now('web02')).status).toBe(0);
    },
  );

  test.each<NodeJS.Signals>(['SIGTERM', 'SIGINT', 'SIGHUP'])(
    'with --release-on-signal after %s the slot is given back, as interrupted',
    async (signal) => {
      const { folder, pid } = stage();
      const group = `released-${signal}`;
      const run = on(group).start('web01', RELEASE, '--', ...untilTold(folder));
      await pid('command');
      run.signal(signal);
      const status = 128 + constants.signals[signal];
      expect(await run.ended).toMatchObject({ status, stdout: '' });
      expect(await on(group).keys()).toEqual(['.last', '.runs/web01', '.tail']);
      expect(await on(group).lastRun('web01')).toMatchObject({ outcome: 'interrupted', exitCode: status });
      expect(await sessions()).toEqual([]);
      expect(
        (await runlock(agent, ['exec', '-g', group, '--node', 'web02', '-w', '0', '--', 'true'])).status,
      ).toBe(0);
    },
  );

  test('USR1 ends nothing by itself: a command that dies of it has failed', async () => {
    const { folder, pid } = stage();
    const run = on('usr1').start('web01', '--', ...untilTold(folder));
    await pid('command');
    run.signal('SIGUSR1');
    expect((await run.ended).status).toBe(128 + constants.signals.SIGUSR1);
    expect(await on('usr1').lastRun('web01')).toMatchObject({ outcome: 'failed' });
  });
});

describe('a signal to a waiting runlock', () => {
  test.each<NodeJS.Signals>(['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'])(
    '%s: it leaves the queue at once, and starts nothing, ever',
    async (signal) => {
      const { folder, pid, lines } = stage();
      const group = `wait-${signal}`;
      const holder = on(group).start('web01', '--', ...untilTold(folder));
      await pid('command');
      const waiter = on(group).start('web02', '--', 'sh', '-c', `echo >>${folder}/started`);
      await on(group).waiting();
      waiter.signal(signal);
      const status = 128 + constants.signals[signal];
      expect(await waiter.ended).toEqual({ status, stdout: '', stderr: '' });
      // The holder still runs: only its own keys are there.
      expect(
        (await agent.kv.keys(`runlock/${group}/`)).filter((key) => !/\/\.(?:tail|last)$/.test(key)),
      ).toEqual([
        `runlock/${group}/.node/web01`,
        `runlock/${group}/.slot/0/lock`,
        `runlock/${group}/.slot/0/owner`,
      ]);
      expect(await sessions()).toHaveLength(1);
      writeFileSync(`${folder}/end`, '');
      expect((await holder.ended).status).toBe(0);
      expect(lines('started')).toEqual([]);
      expect(await on(group).keys()).toEqual(['.last', '.runs/web01', '.tail']);
    },
  );

  test('it comes at the same moment as the slot: either all of it runs, or nothing', async () => {
    const { folder, pid, lines } = stage();
    const holder = on('race').start('web01', '--', ...untilTold(folder));
    await pid('command');
    const waiter = on('race').start('web02', '--', 'sh', '-c', `echo >>${folder}/started; exec sleep 300`);
    await on('race').waiting();
    writeFileSync(`${folder}/end`, '');
    await holder.ended;
    waiter.signal('SIGTERM');
    expect((await waiter.ended).status).toBe(143);
    const keys = await agent.kv.keys('runlock/race/');
    // A command that was started was stopped half-way, whatever it had done by then.
    const hasRun = keys.includes('runlock/race/.runs/web02');
    const kept = hasRun ? ['runlock/race/.slot/0/owner'] : [];
    expect(keys.filter((key) => /\.(?:slot|queue|node)\//.test(key))).toEqual(kept);
    expect(hasRun || lines('started').length === 0).toBe(true);
    expect(await sessions()).toEqual([]);
  });

  test('during the splay: nothing is started, and Consul never hears of it', async () => {
    const { folder, lines } = stage();
    const run = on('splay').start('web01', '--splay', '24h', '--', 'sh', '-c', `echo >>${folder}/started`);
    await eventually(() => expect(catches(run.pid, 'SIGTERM')).toBe(true));
    run.signal('SIGTERM');
    expect(await run.ended).toEqual({ status: 143, stdout: '', stderr: '' });
    expect(lines('started')).toEqual([]);
    expect(await on('splay').keys()).toEqual([]);
    expect(await sessions()).toEqual([]);
  });

  /** Whether the process has a handler of its own for the signal (proc(5), SigCgt). */
  function catches(pid: number, signal: NodeJS.Signals): boolean {
    const [, mask = '0'] = /^SigCgt:\s+([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    return ((BigInt(`0x${mask}`) >> BigInt(constants.signals[signal] - 1)) & 1n) === 1n;
  }
});
