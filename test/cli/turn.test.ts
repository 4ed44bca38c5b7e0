// One run of a node at a time on its host, whatever their groups (docs/adr/0041).
import { chmodSync, mkdirSync, readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { askFor } from '../support/asked-jobs.ts';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { RUNLOCK } from '../support/program.ts';
import { agentOn } from '../support/runlock-agent.ts';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { startInTerminal } from '../support/terminal.ts';
import { turnsOf } from '../support/turns.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();
let count = 0;

/** Two groups, whose runs of one node take turns. */
function setUp(...args: string[]) {
  const env = turnsOf(`turn ${(count += 1)}`);
  const [first, second] = [1, 2].map((each) => groupOf(agent, `turn${count}/${each}`, { env, args }));
  if (!first || !second) throw new Error('two groups');
  const tickets = () => readdirSync(env.RUNLOCK_TURN_DIR).sort();
  return { env, first, second, tickets };
}

const WAITS =
  /waiting without a slot of turn\d+\/2: web01 is already running or queued in turn\d+\/1 \(pid \d+, sh, for \d+s\)/;

describe('two runs of one node in different groups', () => {
  test('take turns: the second has no slot and no ticket until the first has ended', async () => {
    const { first, second, tickets } = setUp();
    const run = await first.hold('web01');
    const next = second.start('web01', '-v', '--', 'echo', 'ran');
    await next.says(WAITS);
    expect(await second.tickets()).toEqual([]);
    expect(await second.sessions()).toEqual([]);
    const status = await eventually(async () => {
      const { stdout } = await runlock(agent, ['status', second.name]);
      expect(stdout).toContain('web01 has been waiting without a slot');
      return stdout;
    });
    expect(status.replaceAll(/\s+/g, ' ')).toMatch(
      /another run of the node on its host: sh in turn\d+\/1 \(pid \d+\)/,
    );
    await run.end();
    expect(await next.ended).toMatchObject({ status: 0, stdout: 'ran\n' });
    expect(tickets()).toEqual([]);
    expect(await second.keys()).toEqual(['.last', '.runs/web01', '.tail']);
  });

  test('--wait 0, and the end of --wait: 75, and who has the turn', async () => {
    const { first, second } = setUp();
    const run = await first.hold('web01');
    for (const wait of ['0', '600ms'])
      expect(await second.exec('web01', '-v', '-w', wait, '--', 'true')).toMatchObject({
        status: 75,
        stderr: expect.stringMatching(
          /busy: web01 is already running or queued in turn\d+\/1 \(pid \d+, sh, for \d+s\)\n$/,
        ) as string,
      });
    // Cron need not mail that the same group's run is under way; that another one's is, it does.
    expect(await first.exec('web01', '-w', '0', '--', 'true')).toEqual({
      status: 75,
      stdout: '',
      stderr: '',
    });
    expect((await second.exec('web01', '-w', '0', '--', 'true')).stderr).toMatch(/^runlock: busy: web01 /);
    expect(await second.exec('web02', '--', 'true')).toEqual({ status: 0, stdout: '', stderr: '' });
    await run.end();
  });

  test('Ctrl-C on a terminal, which shows what the run waits for: nothing of it stays', async () => {
    const { first, second, env, tickets } = setUp();
    const run = await first.hold('web01');
    const next = startInTerminal(agent, second.words('web01', '--', 'true'), { env });
    await next.shows(/waiting \d+s for another run of web01 on this host · sh in turn\d+\/1/);
    next.type('\x03');
    expect(await next.ended).toBe(130);
    expect(tickets()).toHaveLength(1);
    expect(await second.keys()).toEqual([]);
    await run.end();
  });

  test('a run that waits outside has no turn', async () => {
    const { first, second } = setUp();
    const waits = first.start('web01', '--when', `state:turn/${count}`, '-v', '--', 'true');
    await waits.says(/waiting until --when is met/);
    expect((await second.exec('web01', '-w', '0', '--', 'true')).status).toBe(0);
    await runlock(agent, ['state', 'set', `turn/${count}`, '1']);
    expect((await waits.ended).status).toBe(0);
  });

  test('a run inside a run has its turn; a process that only says so waits', async () => {
    const { first, second, env } = setUp();
    const inner = second.words('web01', '-w', '0', '--', 'echo', 'inner');
    const nested = await first.exec('web01', '--', 'sh', '-c', '"$@"', 'sh', RUNLOCK, ...inner);
    expect(nested).toEqual({ status: 0, stdout: 'inner\n', stderr: '' });
    const run = await first.hold('web01');
    const around = { RUNLOCK_RUN_ID: (await first.claim())?.run, RUNLOCK_RUN_NODE: 'web01' };
    expect((await runlock(agent, inner, { env: { ...env, ...around } })).status).toBe(75);
    await run.end();
  });
});

describe('a run that has the turn', () => {
  test('is killed: its command ends, and the next run goes', async () => {
    const { first, second } = setUp();
    const run = await first.hold('web01');
    // A process that nobody has reaped yet is dead as well.
    const looks = `case $(cut -d' ' -f3 /proc/${run.command}/stat 2>/dev/null) in ''|Z|X) echo alone;; esac`;
    const next = second.start('web01', '-v', '--', 'sh', '-c', looks);
    await next.says(WAITS);
    run.signal('SIGKILL');
    expect(await next.ended).toMatchObject({ status: 0, stdout: 'alone\n' });
  });

  test('is stopped: nobody passes it', async () => {
    const { first, second } = setUp();
    const run = await first.hold('web01');
    run.signal('SIGSTOP');
    expect((await second.exec('web01', '-w', '500ms', '--', 'true')).status).toBe(75);
    run.signal('SIGCONT');
    await run.end();
  });
});

test('a run that is killed while it waits for the turn keeps nobody out', async () => {
  const { first, second } = setUp();
  const run = await first.hold('web01');
  const waits = second.start('web01', '-v', '--', 'true');
  await waits.says(WAITS);
  const behind = second.start('web01', '-v', '--', 'true');
  await behind.says(WAITS);
  waits.signal('SIGKILL');
  await run.end();
  expect((await behind.ended).status).toBe(0);
});

test('runs of one node that come at once, each in a group of its own, never overlap', async () => {
  const { env, tickets } = setUp();
  const { folder, lines } = stage();
  const note = `echo "+ $1" >>${folder}/notes; sleep 0.02; echo "- $1" >>${folder}/notes`;
  const runs = Array.from({ length: 6 }, (_, at) =>
    groupOf(agent, `at-once/${at}`, { env }).exec('web01', '--', 'sh', '-c', note, 'sh', String(at)),
  );
  for (const { status } of await Promise.all(runs)) expect(status).toBe(0);
  const notes = lines('notes');
  expect(notes).toHaveLength(12);
  for (let at = 0; at < 12; at += 2) expect(notes[at + 1]).toBe(notes[at]?.replace('+', '-'));
  expect(tickets()).toEqual([]);
});

test('a run of cron and a job of the node’s agent, in two groups, go one after the other', async () => {
  const cron = groupOf(agent, 'turn/cron', { env: turnsOf() });
  const script = `command = ["/bin/sh", "-c", "echo ran"]\nallow = ["ops"]\ngroup = "turn/job"\n`;
  const on = agentOn(agent, 'tn1', {
    tasks: { 't.toml': script },
    env: { RUNLOCK_REQUESTS: 'trust-everybody', ...turnsOf() },
  });
  const running = on.start();
  await running.says(/is ready/);
  const run = await cron.hold('tn1');
  const job = await askFor(agent, 'turn/job', { targets: [['tn1', 0]] });
  const record = () => agent.kv.get('runlock/turn/job/.outside/tn1');
  await eventually(async () => expect((await record())?.Value).toContain('"turn":{'), 20_000);
  expect((await job.document())?.state).toBe('accepted');
  await run.end();
  expect(await job.becomes('good')).toMatchObject({ exitCode: 0 });
});

test('a folder that others can write: said once, and the run goes on', async () => {
  const { folder } = stage();
  mkdirSync(`${folder}/turns`, { mode: 0o700 });
  chmodSync(`${folder}/turns`, 0o777);
  const { status, stderr } = await groupOf(agent, 'open', {
    env: { RUNLOCK_TURN_DIR: `${folder}/turns` },
  }).exec('web01', ...['--', 'true']);
  expect(status).toBe(0);
  expect(stderr).toBe(
    `runlock: runs of web01 on this host do not wait for each other, because a ticket for its turn can't be written: ${folder}/turns can be written by others\n`,
  );
});

test('a dry run, and acquire, take no turn', async () => {
  const { first, second, env } = setUp();
  const run = await first.hold('web01');
  expect((await second.exec('web01', '--dry-run', '--', 'true')).status).toBe(0);
  const held = await runlock(agent, ['acquire', '-g', second.name, '--node', 'web01', '-w', '0'], { env });
  expect(held.status).toBe(0);
  expect((await runlock(agent, ['release', second.name, '--node', 'web01'], { env })).status).toBe(0);
  await run.end();
});
