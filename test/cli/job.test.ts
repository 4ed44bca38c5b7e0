// `runlock job`: requests of named nodes, whose agents are played by their documents.
import { describe, expect, test } from 'vitest';
import { aTask, playAgent, playTarget } from '../support/played-agent.ts';
import { eventually } from '../support/processes.ts';
import { RUNLOCK } from '../support/program.ts';
import type { Running } from '../support/program.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { startInTerminal } from '../support/terminal.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ acl: true });

const job = (...words: readonly string[]) => runlock(agent, ['job', ...words]);
const show = async (id: string) =>
  JSON.parse((await job('show', id, '--json')).stdout) as {
    readonly state: string;
    readonly states: Readonly<Record<string, number>>;
    readonly targets: readonly { readonly node: string; readonly state: string; readonly why?: string }[];
    readonly stopped?: object;
    readonly params: object;
    readonly until: string;
    readonly askedAt: string;
  };
const keys = async () => (await agent.kv.tree('runlock/.requests/')).map(({ Key }) => Key);
/** When stdout has a line that matches. */
const prints = (running: Running, pattern: RegExp) =>
  eventually(() => expect(running.stdout()).toMatch(pattern));
const lines = (text: string) => text.trim().split('\n');

describe('job start', () => {
  test('is told before anything is written what its nodes can not do', async () => {
    await playAgent(agent, 'j01', { tasks: [aTask()] });
    await playAgent(agent, 'j02', {
      tasks: [aTask({ allow: ['ci'] }), aTask({ name: 'other', groups: ['a/b'] })],
    });
    await playAgent(agent, 'j03', { tasks: [aTask({ name: 'other' })], noRequests: 'ACLs are off' });
    const refused = async (status: number, said: string, ...words: readonly string[]) => {
      const result = await job('start', ...words);
      expect({ status: result.status, stdout: result.stdout }).toEqual({ status, stdout: '' });
      expect(result.stderr).toContain(`nothing was started: ${said}`);
    };
    await refused(78, 'j09: no runlock agent is running there', 'chef', '--node', 'j01,j09');
    await refused(78, "j01: it has no task chief; did you mean 'chef'?", 'chief', '--node', 'j01');
    await refused(
      77,
      'j02: its task chef does not allow requests of ops (only ci may)',
      'chef',
      '--node',
      'j02',
    );
    await refused(
      64,
      'j01: its task chef has no parameter x (it has recipe)',
      'chef',
      '--node',
      'j01',
      '--param',
      'x=1',
    );
    await refused(78, 'j03: its agent serves no requests: ACLs are off', 'other', '--node', 'j03');
    await playAgent(agent, 'j04', { tasks: [aTask({ groups: ['a/b', 'c'] })] });
    const homes = 'j04: its task chef runs in a/b, but in prod/web on j01';
    await refused(64, homes, 'chef', '--node', 'j01,j04');
    expect(await keys()).toEqual([]);
  });

  test('--dry-run says it of each node, and writes nothing', async () => {
    await playAgent(agent, 'j11');
    await playAgent(agent, 'j12', { pausedSince: new Date().toISOString() });
    const good = await job('start', 'chef', '--node', 'j11,j12', '--dry-run');
    expect(good).toEqual({
      status: 0,
      stderr: '',
      stdout: [
        'j11: would take chef, in prod/web, at once',
        'j12: would take chef, in prod/web, once its agent is resumed: it is paused, behind 1 other',
        '',
      ].join('\n'),
    });
    const bad = await job('start', 'chef', '--node', 'j11,j19', '--dry-run', '--json');
    expect(bad.status).toBe(78);
    expect(JSON.parse(bad.stdout)).toMatchObject({
      ...{ v: 1, kind: 'dry-run', task: 'chef', principal: 'ops' },
      nodes: [
        { node: 'j11', ok: true, groups: ['prod/web'] },
        { node: 'j19', ok: false },
      ],
    });
    expect(await keys()).toEqual([]);
  });

  test('answers when all have accepted (0) or some refused (4), with the reason', async () => {
    await playAgent(agent, 'j21');
    await playAgent(agent, 'j22');
    const words = [
      'job',
      'start',
      'chef',
      '--node',
      'j22',
      '--node',
      'j21',
      '--param',
      'recipe=app',
      '--id',
      'both',
    ];
    const started = startRunlock(agent, [
      ...words,
      '--reason',
      'release',
      '--timeout',
      '5m',
      '--expires',
      '1h',
    ]);
    await prints(started, /ops\/both: chef on 2 nodes in prod\/web/);
    await playTarget(agent, 'ops/both', 'j21').accept();
    await prints(started, /j21: accepted/);
    await playTarget(agent, 'ops/both', 'j22').end('refused', { why: 'too many requests' });
    const { status, stdout } = await started.ended;
    expect(status).toBe(4);
    expect(stdout).toContain('j22: refused: too many requests\n');
    expect(stdout).toContain("to follow it: 'runlock job watch ops/both'\n");
    const shown = await show('both');
    expect(shown).toMatchObject({
      ...{ job: 'ops/both', task: 'chef', params: { recipe: 'app' }, home: 'prod/web', reason: 'release' },
      ...{ timeoutMs: 300_000, state: 'open', states: { accepted: 1, refused: 1 } },
    });
    expect(Date.parse(shown.until) - Date.parse(shown.askedAt)).toBeCloseTo(3_600_000, -3);
  });

  test('without an answer ends with 75, and the request stays; --wait 0 does not wait', async () => {
    await playAgent(agent, 'j31');
    const silent = await job('start', 'chef', '--node', 'j31', '--id', 'silent', '--wait', '300ms');
    expect(silent.status).toBe(75);
    expect(silent.stderr).toContain('no answer from j31 within 0s; job ops/silent stays');
    expect((await job('start', 'chef', '--node', 'j31', '--id', 'now', '--wait', '0')).status).toBe(0);
    expect(await show('silent')).toMatchObject({ state: 'open', states: { queued: 1 } });
  });

  test('again with the same --id is the same job, also without its agent; another request is not', async () => {
    const leave = await playAgent(agent, 'j41');
    const start = ['start', 'chef', '--node', 'j41', '--id', 'again', '--wait', '0'];
    expect((await job(...start)).status).toBe(0);
    await leave();
    const again = await job(...start, '-v');
    expect(again.status).toBe(0);
    expect(again.stderr).toContain('job ops/again is there already, from the same start');
    const other = await job(...start, '--param', 'recipe=x');
    expect(other).toMatchObject({ status: 64, stdout: '' });
    expect(other.stderr).toContain('job ops/again exists already, with other params');
  });

  test('with a token that may not write as the principal ends with 77, and names the rule', async () => {
    await playAgent(agent, 'j51');
    const read = 'key_prefix "runlock/" { policy = "read" }';
    const env = { ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(read) };
    const refused = await runlock({ env }, ['job', 'start', 'chef', '--node', 'j51', '--id', 'forbidden']);
    expect(refused).toMatchObject({ status: 77, stdout: '' });
    const [retried, ...last] = lines(refused.stderr);
    expect(retried).toMatch(/job ops\/forbidden could not be written yet: .*; retrying for 3s$/);
    expect(last).toHaveLength(1);
    for (const line of [retried, ...last])
      expect(line).toContain('key_prefix "runlock/.requests/ops/" { policy = "write" }');
    expect(await keys()).not.toContain('runlock/.requests/ops/spec/forbidden');
  });
});

describe('job start --watch', () => {
  const watched = async (id: string, nodes: readonly string[], more: readonly string[] = []) => {
    for (const node of nodes) await playAgent(agent, node);
    const words = ['job', 'start', 'chef', '--node', nodes.join(), '--id', id, '--watch', ...more];
    const started = startRunlock(agent, words);
    await prints(started, new RegExp(`ops/${id}`));
    return { started, play: (node: string) => playTarget(agent, `ops/${id}`, node) };
  };

  test('tells each change, a line each, and ends with 0 when all are good', async () => {
    const { started, play } = await watched('good', ['j61']);
    await play('j61').accept();
    await prints(started, /j61: accepted/);
    await play('j61').run('run-1');
    await prints(started, /j61: running/);
    await play('j61').end('good', { exitCode: 0, lastLine: 'done \u001b[2J' });
    const { status, stdout } = await started.ended;
    expect(status).toBe(0);
    expect(lines(stdout)).toEqual([
      'ops/good: chef on 1 node in prod/web',
      'j61: accepted',
      'j61: running',
      String.raw`j61: good after 0s: done \x1b[2J`,
      'ops/good is over: 1 good',
    ]);
  });

  test('shows the last line of what runs; only with the right to write does it ask for it', async () => {
    const { started, play } = await watched('live', ['j65']);
    const { accept, run, tail, end } = play('j65');
    const read = await agent.token('key_prefix "runlock/" { policy = "read" }');
    const env = { ...agent.env, CONSUL_HTTP_TOKEN: read };
    const viewer = startRunlock({ env }, ['job', 'watch', 'live', '--json']);
    await accept();
    await run('run-9');
    const marks = async () => (await agent.kv.tree('runlock/prod/web/.jobs/ops/live/stage/')).length;
    await eventually(async () => expect(await marks()).toBe(1));
    await tail('half done \u001b[2J');
    await prints(started, /j65: running: half done \\x1b\[2J\n/);
    await prints(viewer, /"state":"running",.*"lastLine":"half done /);
    await end('good', { exitCode: 0, lastLine: 'done' });
    expect(await started.ended).toMatchObject({ status: 0, stderr: '' });
    expect(await viewer.ended).toMatchObject({ status: 0, stderr: '' });
    expect(await marks()).toBe(0);
  });

  test('is a table on a terminal, which stays as the job ended; Ctrl-C leaves it (130)', async () => {
    await playAgent(agent, 'j66');
    await job('start', 'chef', '--node', 'j66', '--id', 'table', '--wait', '0');
    const { accept, run, tail, end } = playTarget(agent, 'ops/table', 'j66');
    await accept();
    await run('run-10');
    const marks = async () => (await agent.kv.tree('runlock/prod/web/.jobs/ops/table/stage/')).length;
    const [ENTER, LEAVE] = ['\x1b[?1049h\x1b[?25l', '\x1b[?25h\x1b[?1049l'];
    const left = startInTerminal(agent, ['job', 'watch', 'table']);
    await left.shows(/j66 +running/);
    await eventually(async () => expect(await marks()).toBe(1));
    left.type('\x03');
    expect(await left.ended).toBe(130);
    expect(left.screen()).toMatch(/\[\?1049l[^]*job ops\/table goes on/);
    expect(await marks()).toBe(0);

    const watching = startInTerminal(agent, ['job', 'watch', 'table']);
    await watching.shows(/j66 +running/);
    await tail('half done');
    await watching.shows(/NODE[^]*j66 +running +\d+s +half done/);
    await end('good', { exitCode: 0, lastLine: 'done' });
    expect(await watching.ended).toBe(0);
    const screen = watching.screen();
    expect(screen.split(ENTER)).toHaveLength(2);
    const [drawn = '', stays = ''] = screen.split(LEAVE);
    expect(drawn).toContain('runlock/ in Consul at ');
    expect(stays).toMatch(/^ops\/table: done; 1 good\r\n[^]*j66 +good +0 +\d+s +done/);
  });

  test('ends with 2 if the first failure keeps others from starting; JSON lines for programs', async () => {
    const { started, play } = await watched('bad', ['j71', 'j72'], ['--json']);
    await play('j71').accept();
    await play('j71').run('run-2');
    await play('j71').end('failed', { exitCode: 7, lastLine: 'no space left' });
    const { status, stdout } = await started.ended;
    expect(status).toBe(2);
    const told = lines(stdout).map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(told[0]).toEqual({
      ...{ v: 1, event: 'job', job: 'ops/bad', task: 'chef', home: 'prod/web', state: told[0]?.['state'] },
      ...{ until: told[0]?.['until'], targets: 2, stages: [2] },
      selection: { named: { count: 2, digest: expect.any(String) as string } },
    });
    expect(told).toContainEqual(
      expect.objectContaining({
        event: 'target',
        node: 'j71',
        state: 'failed',
        exitCode: 7,
        lastLine: 'no space left',
      }),
    );
    expect(told).toContainEqual(expect.objectContaining({ event: 'stopped', why: 'failures' }));
    expect(told.at(-1)).toMatchObject({
      event: 'over',
      state: 'stopped',
      states: { failed: 1, 'not-started': 1 },
    });
    expect((await job('watch', 'bad')).status).toBe(2);
  });

  test('Ctrl-C leaves the job alone (130), and says how to go on', async () => {
    const { started, play } = await watched('left', ['j81']);
    started.signal('SIGINT');
    const { status, stderr } = await started.ended;
    expect(status).toBe(130);
    expect(stderr).toContain(
      "job ops/left goes on; to follow it: 'runlock job watch ops/left'; to stop it: ",
    );
    await play('j81').accept();
    expect(await show('left')).toMatchObject({ state: 'open', states: { accepted: 1 } });
  });
});

describe('an operator', () => {
  test('cancels: what has not started never starts, and who watches hears why (3)', async () => {
    for (const node of ['j91', 'j92']) await playAgent(agent, node);
    await job('start', 'chef', '--node', 'j91,j92', '--id', 'c1', '--wait', '0');
    const target = playTarget(agent, 'ops/c1', 'j91');
    await target.accept();
    await target.run('run-3');
    const watching = startRunlock(agent, ['job', 'watch', 'ops/c1']);
    await prints(watching, /j91: running/);
    const cancelled = await job('cancel', 'c1', '--reason', 'wrong version');
    expect(cancelled).toMatchObject({ status: 0, stderr: '' });
    expect(cancelled.stdout).toMatch(/^ops\/c1: stopping: runs that are under way go on to their end; /);
    expect(cancelled.stdout).toMatch(/stopped 0s ago: cancelled by \S+ \(wrong version\)/);
    await prints(watching, /j92: cancelled/);
    await target.end('good', { exitCode: 0 });
    expect(await watching.ended).toMatchObject({ status: 3 });
    const again = await job('cancel', 'c1', '--reason', 'again', '--json');
    expect(again.status).toBe(0);
    expect(JSON.parse(again.stdout)).toMatchObject({ kind: 'already', stopped: { reason: 'wrong version' } });
  });

  test('lists the jobs, the newest first; none that can not be found is shown', async () => {
    await playAgent(agent, 'j95');
    await job('start', 'chef', '--node', 'j95', '--id', 'l1', '--wait', '0', '--principal', 'ops');
    await job('start', 'chef', '--node', 'j95', '--id', 'l2', '--wait', '0');
    await playTarget(agent, 'ops/l2', 'j95').end('refused', { why: 'no' });
    const { stdout } = await job('list', '--json');
    const { jobs } = JSON.parse(stdout) as { jobs: { job: string; state: string; states: object }[] };
    const known = jobs.map(({ job: name }) => name);
    expect(known.indexOf('ops/l2')).toBeLessThan(known.indexOf('ops/l1'));
    expect(jobs).toContainEqual(
      expect.objectContaining({
        job: 'ops/l2',
        task: 'chef',
        total: 1,
        state: 'done',
        states: { refused: 1 },
      }),
    );
    expect((await job('list')).stdout).toMatch(/ops\/l2 +done +chef +prod\/web +1 +1 refused/);
    for (const words of [
      ['show', 'nope'],
      ['watch', 'nope'],
      ['cancel', 'nope', '--reason', 'x'],
    ]) {
      const absent = await job(...words);
      expect(absent).toMatchObject({ status: 78, stdout: '' });
      expect(absent.stderr).toContain("there is no job ops/nope; 'runlock job list' lists them");
    }
    const done = await job('cancel', 'l2', '--reason', 'x');
    expect(done.status).toBe(75);
    expect(done.stderr).toContain('job ops/l2 was done already; nothing was changed');
  });

  test('lists of each job all its nodes by their states, also those that a stop ended', async () => {
    for (const node of ['jc1', 'jc2', 'jc3']) await playAgent(agent, node);
    const counted = async (id: string) => {
      const { jobs } = JSON.parse((await job('list', '--json')).stdout) as {
        jobs: { job: string; total: number; states: Record<string, number> }[];
      };
      const found = jobs.find((each) => each.job === `ops/${id}`);
      const { states, targets } = await show(id);
      expect(found).toMatchObject({ states, total: targets.length });
      return states;
    };
    await job('start', 'chef', '--node', 'jc1,jc2,jc3', '--id', 'sum', '--wait', '0');
    expect(await counted('sum')).toEqual({ queued: 3 });
    const target = playTarget(agent, 'ops/sum', 'jc1');
    await target.accept();
    expect(await counted('sum')).toEqual({ accepted: 1, queued: 2 });
    await target.run('run-6');
    expect(await counted('sum')).toEqual({ running: 1, queued: 2 });
    await job('cancel', 'sum', '--reason', 'x');
    expect(await counted('sum')).toEqual({ running: 1, cancelled: 2 });
    expect((await job('list')).stdout).toMatch(
      /ops\/sum +stopping +chef +prod\/web +3 +1 running, 2 cancelled/,
    );
    await target.end('failed', { exitCode: 1 });
    expect(await counted('sum')).toEqual({ failed: 1, cancelled: 2 });
    expect((await job('list')).stdout).toMatch(
      /ops\/sum +stopped +chef +prod\/web +3 +2 cancelled, 1 failed/,
    );
  });

  test.each([
    ['no JSON', 'junk'],
    ['JSON of another shape', '{"v":1,"state":"fine"}'],
    ['larger than any record', `{"v":1,"rev":1,"state":"running","run":"${'r'.repeat(100_000)}"}`],
  ])('is told which key holds no record (%s), and how to remove it', async (_, value) => {
    const id = `junk${value.length}`;
    await playAgent(agent, id);
    await job('start', 'chef', '--node', id, '--id', id, '--wait', '0');
    const key = `runlock/prod/web/.jobs/ops/${id}/nodes/${id}`;
    await agent.kv.put(key, value);
    expect(await show(id)).toMatchObject({
      states: { unreadable: 1 },
      problems: [expect.stringContaining(key)],
    });
    const shown = await job('show', id);
    expect(shown.status).toBe(0);
    expect(shown.stdout).toMatch(new RegExp(`${id} +unreadable`));
    expect(shown.stdout.replaceAll(/\s+/g, ' ')).toContain(`remove it with 'consul kv delete ${key}'`);
    expect((await job('list')).stdout).toMatch(new RegExp(`ops/${id} +open .* 1 unreadable`));
    const watching = startRunlock(agent, ['job', 'watch', id]);
    await prints(watching, new RegExp(`^${id}: unreadable$`, 'm'));
    await prints(watching, /consul kv delete/);
    await agent.http('DELETE', `/v1/kv/${key}`);
    await prints(watching, new RegExp(`^${id}: queued$`, 'm'));
    await job('cancel', id, '--reason', 'x');
    expect((await watching.ended).status).toBe(3);
  });

  test('sees of a run whose session is gone that it may have ended', async () => {
    await playAgent(agent, 'j96');
    await job('start', 'chef', '--node', 'j96', '--id', 'killed', '--wait', '0');
    const target = playTarget(agent, 'ops/killed', 'j96');
    await target.accept();
    await target.run('r96');
    const owner = 'runlock/prod/web/.slot/96/owner';
    const claim = { v: 1, node: 'j96', state: 'running', run: 'r96', since: new Date().toISOString() };
    const process = { command: 'chef', hold: 'none', pid: 1, startTime: '1', bootId: 'b' };
    await agent.kv.put(owner, JSON.stringify({ ...claim, ...process }));
    const shown = (await job('show', 'killed')).stdout.replaceAll(/\s+/g, ' ');
    expect(shown).toMatch(/j96 running .* its session is gone, so it may have ended; its agent records that/);
    expect((await show('killed')).targets).toMatchObject([{ state: 'running', sessionGone: true }]);
    await agent.http('DELETE', `/v1/kv/${owner}`);
    await target.end('good');
    expect((await show('killed')).targets[0]).not.toHaveProperty('sessionGone');
  });

  test('who looks stops a job whose time is over; without the right it is only shown', async () => {
    await playAgent(agent, 'j97');
    await job('start', 'chef', '--node', 'j97', '--id', 'late', '--wait', '0');
    const key = 'runlock/.requests/ops/spec/late';
    const spec = JSON.parse((await agent.kv.get(key))?.Value ?? '') as object;
    await agent.kv.put(key, JSON.stringify({ ...spec, until: new Date(Date.now() - 6_000).toISOString() }));
    const read = await agent.token('key_prefix "runlock/" { policy = "read" }');
    const env = { ...agent.env, CONSUL_HTTP_TOKEN: read };
    const viewer = startRunlock({ env }, ['job', 'watch', 'late']);
    await prints(viewer, /ops\/late/);
    const watcher = startRunlock(agent, ['job', 'watch', 'late']);
    expect(await watcher.ended).toMatchObject({ status: 4 });
    expect((await viewer.ended).stdout).toContain('ops/late stopped 0s ago: its time was over\n');
    expect(await show('late')).toMatchObject({ state: 'stopped', states: { expired: 1 } });
  });
});

describe('inside a run', () => {
  const inside = (words: readonly string[], node = 'i01') =>
    runlock(agent, [
      ...['exec', '-g', 'in/side', '--node', node, '--', 'sh', '-c', '"$0" "$@" 2>&1; echo status $?'],
      ...[RUNLOCK, ...words],
    ]);

  test('--watch is refused where a target needs what the run holds, else warned of', async () => {
    await playAgent(agent, 'i01', { tasks: [aTask({ groups: ['other/one'] })] });
    await playAgent(agent, 'i02', { tasks: [aTask({ groups: ['in/side'] })] });
    const own = await inside(['job', 'start', 'chef', '--node', 'i01', '--watch']);
    expect(own.stdout).toContain('the run holds the turn of i01, where one task runs at a time');
    expect(own.stdout).toContain('status 64\n');
    const group = await inside(['job', 'start', 'chef', '--node', 'i02', '--watch']);
    expect(group.stdout).toContain('the run holds a slot of in/side, which a target needs');
    expect(group.stdout).toContain('status 64\n');
    expect((await keys()).filter((key) => key.includes('/i0'))).toEqual([]);
    const asked = await inside(['job', 'start', 'chef', '--node', 'i02', '--id', 'in2', '--wait', '0']);
    expect(asked.stdout).toContain('status 0\n');
    expect((await inside(['job', 'watch', 'in2'])).stdout).toContain('status 64\n');
    await playTarget(agent, 'ops/in2', 'i02').end('refused', { why: 'no' });
    expect((await inside(['job', 'watch', 'in2'])).stdout).toContain('status 4\n');
  });
});

test('completion knows the tasks that can be asked for, the nodes with an agent, and the jobs', async () => {
  await playAgent(agent, 'k01', { tasks: [aTask({ name: 'k-task' }), aTask({ name: 'k-none', allow: [] })] });
  await job('start', 'k-task', '--node', 'k01', '--id', 'k-job', '--wait', '0');
  const offers = async (...words: readonly string[]) =>
    (await runlock(agent, ['__complete', '--', ...words])).stdout;
  expect(await offers('job', 'start', 'k')).toContain('k-task');
  expect(await offers('job', 'start', 'k')).not.toMatch(/k-none|k-job/);
  expect(await offers('job', 'start', 'k-task', '--node', 'k')).toContain('k01');
  expect(await offers('job', 'watch', 'ops/k')).toContain('ops/k-job');
  expect(await offers('job', 'list', '')).not.toContain('k-job');
});

test.each([
  [['job'], 'missing <action>'],
  [['job', 'start'], 'job start takes the name of a task'],
  [['job', 'start', '../x'], "'../x' is not a task's name"],
  [['job', 'start', 'x'], 'say which nodes, with --node'],
  [['job', 'start', 'x', '--node', 'a,,b'], '--node a,,b: not a node name'],
  [['job', 'start', 'x', '--node', 'a', '--id', 'A'], "--id A: not a job's id"],
  [['job', 'start', 'x', '--node', 'a', '--watch', '--dry-run'], '--watch and --dry-run exclude each other'],
  [['job', 'start', 'x', '--node', 'a', '--principal', 'a/b'], '--principal a/b: not a principal'],
  [['job', 'list', 'x'], "job list takes no name; see 'runlock job show x'"],
  [['job', 'show', 'a/b/c'], "'a/b/c' is not a job; write its id, or PRINCIPAL/ID"],
  [['job', 'show', '../x'], "'../x' is not a job"],
  [['job', 'cancel', 'x'], '--reason is required'],
  [['job', 'show', 'x', '--kill'], "--kill is for 'job cancel' only"],
  [['job', 'cancel', 'x', '--reason', 'y', '--watch'], "--watch is for 'job start' and 'job retry' only"],
])('%j is wrong usage', async (words, said) => {
  const { status, stdout, stderr } = await runlock(undefined, words);
  expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
  expect(stderr).toContain(said);
});
