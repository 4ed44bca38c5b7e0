// What docs/logs.md promises to whoever collects logs: the events of a run, their fields and levels.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { stage } from '../support/stage.ts';
import { startProxy } from '../support/proxy.ts';
import type { Match } from '../support/proxy.ts';
import { STEPS, writes } from '../support/proxy-steps.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { turnsOf } from '../support/turns.ts';

const agent = useAgent();

const page = readFileSync('docs/logs.md', 'utf8');

/** The rows of the table that follows the comment. */
function rowsAfter(comment: string): string[][] {
  const [, rest = ''] = page.split(`<!-- ${comment}:`);
  const lines = rest.split('\n').slice(1);
  const table = lines.slice(
    0,
    lines.findIndex((line) => line === ''),
  );
  return table.slice(2).map((line) => line.slice(2, -2).split(' | '));
}

const quoted = (cell: string) => [...cell.matchAll(/`([\w-]+)`(\?)?/g)];

interface Promised {
  readonly required: readonly string[];
  readonly optional: readonly string[];
  readonly levels: readonly string[];
}
const promised = new Map(
  rowsAfter('events').map(([event = '', , fields = '', levels = '']): [string, Promised] => {
    const names = quoted(fields);
    return [
      event.replaceAll('`', ''),
      {
        required: names.filter(([, , optional]) => optional === undefined).map(([, name = '']) => name),
        optional: names.filter(([, , optional]) => optional !== undefined).map(([, name = '']) => name),
        levels: ['error', 'warning', 'info', 'debug'].filter((level) => levels.includes(level)),
      },
    ];
  }),
);
const others = [...rowsAfter('gate events'), ...rowsAfter('more events')].flatMap(([events = '']) =>
  quoted(events).map(([, name = '']) => name),
);

type Line = Record<string, unknown>;

/** Every line is one object; each event has the fields and the level that are promised, and no others. */
function parse(stderr: string): Line[] {
  const lines = stderr
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line);
  for (const line of lines) {
    const { time, level, message, event, ...fields } = line;
    expect(Object.keys(line).slice(0, 3)).toEqual(['time', 'level', 'message']);
    expect(new Date(String(time)).toISOString()).toBe(time);
    expect(message).not.toBe('');
    const row = promised.get(String(event));
    if (!row) expect([...others, undefined]).toContain(event);
    if (!row) continue;
    const optional = row.optional.filter((name) => name in fields);
    expect({ event, fields: Object.keys(fields).sort() }).toEqual({
      event,
      fields: [...row.required, ...optional].sort(),
    });
    expect({ event, levels: row.levels }).toEqual({
      event,
      levels: expect.arrayContaining([level]) as string[],
    });
  }
  return lines;
}

const seen = new Set<string>();
const of = (stderr: string, event: string): Line => {
  seen.add(event);
  const lines = parse(stderr).filter((line) => line['event'] === event);
  expect(lines, `${event} in ${stderr}`).toHaveLength(1);
  return lines[0] ?? {};
};
/** What happened to the run, in order. */
const events = (stderr: string) =>
  parse(stderr)
    .map(({ event }) => String(event))
    .filter((event) => promised.has(event));

function setup() {
  const made = groupOf(agent, undefined, { args: ['--log-format', 'json'] });
  return { ...made, group: made.name, place: (node: string) => ({ group: made.name, node, slot: 0 }) };
}

describe('a run of each kind', () => {
  test('granted and ended: after how long, in what slot, its exit code, and that the slot is free', async () => {
    const { exec, place } = setup();
    const { stderr } = await exec('web01', '--', 'sh', '-c', 'sleep 0.5');
    expect(events(stderr)).toEqual(['granted', 'ended']);
    const { run, waitedMs } = of(stderr, 'granted');
    expect(waitedMs).toBeGreaterThanOrEqual(0);
    const ended = of(stderr, 'ended');
    expect(ended).toMatchObject({
      ...place('web01'),
      run,
      outcome: 'succeeded',
      exitCode: 0,
      released: 'released',
    });
    expect(ended['ranMs']).toBeGreaterThanOrEqual(200);
    expect(ended['level']).toBe('info');
  });

  test('failed: held, and until when', async () => {
    const { exec } = setup();
    const forever = of((await exec('web01', '--', 'sh', '-c', 'exit 3')).stderr, 'ended');
    expect(forever).toMatchObject({ level: 'warning', outcome: 'failed', exitCode: 3, released: 'held' });
    expect(forever).not.toHaveProperty('heldUntil');
    const limited = of((await exec('web01', '--hold', '4h', '--', 'false')).stderr, 'ended');
    expect(Date.parse(String(limited['heldUntil']))).toBeGreaterThan(Date.now() + 3 * 3_600_000);
  });

  test('waiting: one line, who has the slot, and whether others are before it', async () => {
    const { hold, start, waiting, group } = setup();
    const holder = await hold('web01');
    const first = start('web02', '--', 'true');
    await waiting();
    const second = start('web03', '--', 'true');
    await first.says(/"event":"waiting"/);
    await second.says(/"event":"waiting"/);
    holder.tell();
    const [one, two] = [(await first.ended).stderr, (await second.ended).stderr];
    const holders = [{ slot: 0, node: 'web01', state: 'running' }];
    expect(of(one, 'waiting')).toMatchObject({ level: 'info', group, node: 'web02', behind: false, holders });
    expect(of(one, 'waiting')['message']).toMatch(
      /^web02 is waiting for a slot of \S+ \(slot 0: web01 running sh for \d+s\)$/,
    );
    expect(of(two, 'waiting')).toMatchObject({ node: 'web03', behind: true, holders });
    expect(of(two, 'waiting')['message']).toMatch(/for \d+s, others may be ahead\)$/);
    expect(events(two)).toEqual(['waiting', 'granted', 'ended']);
  });

  test('releasing: Consul does not answer to the end of the command', async () => {
    const { group } = setup();
    await using proxy = await startProxy(agent);
    const said = new AbortController();
    const until = new Promise<void>((resolve) => said.signal.addEventListener('abort', () => resolve()));
    const release: Match = (request) => writes('delete', '/lock')(request);
    proxy.rule({ match: release, times: 1, do: { until } });
    const words = ['exec', '-g', group, '--node', 'web01', '--log-format', 'json', '--', 'true'];
    const run = startRunlock(agent, words, { env: proxy.env });
    await run.says(/"event":"releasing"/);
    said.abort();
    const { stderr, status } = await run.ended;
    expect(status).toBe(0);
    expect(of(stderr, 'releasing')).toMatchObject({ level: 'info', group, node: 'web01', exitCode: 0 });
  });

  test('frozen', async () => {
    const { start, key, freeze } = setup();
    await freeze('anna', 'release day');
    const run = start('web01', '--', 'true');
    await run.says(/"event":"frozen"/);
    await agent.kv.delete(key('.freeze'));
    expect(of((await run.ended).stderr, 'frozen')).toMatchObject({ by: 'anna', reason: 'release day' });
  });

  test('recovered', async () => {
    const { hold, lockedBy, place } = setup();
    const run = await hold('web01');
    const session = (await lockedBy()) ?? '';
    await agent.http('PUT', `/v1/session/destroy/${session}`);
    await run.says(/"event":"recovered"/);
    run.tell();
    const { stderr, status } = await run.ended;
    expect(status).toBe(0);
    expect(of(stderr, 'recovered')).toMatchObject({ ...place('web01'), level: 'warning' });
  });

  test('lost: at once, and at the end what became of the slot', async () => {
    const { hold, key, place } = setup();
    const run = await hold('web01');
    const claim = JSON.parse((await agent.kv.get(key('.slot/0/owner')))?.Value ?? '{}') as object;
    await agent.kv.put(key('.slot/0/owner'), JSON.stringify({ ...claim, node: 'web99', run: 'another' }));
    const { stderr, status } = await run.ended;
    expect(status).toBe(79);
    expect(events(stderr)).toEqual(['granted', 'lost', 'ended']);
    expect(of(stderr, 'lost')).toMatchObject({ ...place('web01'), why: 'lost' });
    expect(of(stderr, 'ended')).toMatchObject({ level: 'warning', outcome: 'lost', released: 'nothing' });
  });

  test('evicted', async () => {
    const { hold, group } = setup();
    const run = await hold('web01');
    await runlock(agent, ['release', group, '--owner', 'web01', '--force']);
    const { stderr } = await run.ended;
    expect(of(stderr, 'lost')).toMatchObject({ why: 'evicted' });
    expect(of(stderr, 'ended')).toMatchObject({ outcome: 'evicted', released: 'released' });
  });

  test('busy: because of others, and because of this node itself', async () => {
    const { hold, exec, start, group, words } = setup();
    const run = await hold('web01');
    const other = of((await exec('web02', '-w', '0', '--', 'true')).stderr, 'busy');
    expect(other).toMatchObject({ level: 'warning', group, node: 'web02', why: 'slots' });
    const own = ['web01', '-w', '0', '--', 'true'] as const;
    const same = of((await exec(...own)).stderr, 'busy');
    expect(same).toMatchObject({ level: 'info', group, node: 'web01', why: 'turn' });
    const elsewhere = runlock(agent, words(...own), { env: turnsOf('a place without turns') });
    const known = of((await elsewhere).stderr, 'busy');
    expect(known).toMatchObject({ level: 'info', group, node: 'web01', why: 'same-node' });
    const waits = start('web01', '--', 'true');
    await waits.says(/turn-waits/);
    run.tell();
    await run.ended;
    expect(of((await waits.ended).stderr, 'turn-waits')).toMatchObject({
      ...{ level: 'info', group, node: 'web01' },
      holder: { pid: run.pid, command: 'sh', groups: [group] },
    });
  });

  test('sent away from the queue by an operator', async () => {
    const { hold, start, group, waiting } = setup();
    const run = await hold('web01');
    const waits = start('web02', '--session-ttl', '10s', '--', 'true');
    await waiting();
    await runlock(agent, ['release', group, '--owner', 'web02', '--force']);
    const { stderr } = await waits.ended;
    expect(of(stderr, 'sent-away')).toMatchObject({ level: 'error', group, node: 'web02' });
    run.tell();
    await run.ended;
  });

  test('a dry run', async () => {
    const { exec, place } = setup();
    const { stderr } = await exec('web01', '--dry-run', '--', 'true');
    expect(of(stderr, 'dry-run')).toMatchObject(place('web01'));
  });

  test('given back: the slot of one group, when another has none', async () => {
    const { hold, group } = setup();
    const run = await hold('web01');
    const args = ['exec', '-g', group, '-g', `a/${group}`, '--node', 'web02', '-w', '0'];
    const { stderr } = await runlock(agent, [...args, '--log-format', 'json', '--', 'true']);
    expect(events(stderr)).toEqual(['granted', 'given-back', 'busy']);
    expect(of(stderr, 'given-back')).toMatchObject({ group: `a/${group}`, node: 'web02', level: 'info' });
    expect(of(stderr, 'busy')).toMatchObject({ group, node: 'web02' });
    run.tell();
    await run.ended;
  });

  test('a metrics file that could not be written', async () => {
    const { exec, group } = setup();
    const { folder } = stage();
    const file = `${folder}/runlock.prom`;
    const { stderr } = await exec('web01', '--metrics-file', file, '--', 'mkdir', '-p', `${file}/in`);
    expect(of(stderr, 'metrics-unwritten')).toMatchObject({ level: 'warning', group, file });
  });

  test('conditions: waited for without a slot, no longer true with it, not true in time', async () => {
    const { words, group } = setup();
    const set = (value: string) => runlock(agent, ['state', 'set', 'logs/a', value]);
    const missing = [expect.stringMatching(/^state:logs\/a=1: logs\/a is 2, set by /)];
    const conditions = ['--when', 'state:logs/a=1', '--', 'true'];
    await set('2');
    const unmet = await runlock(agent, words('web01', '-w', '1s', ...conditions));
    expect(unmet.status).toBe(75);
    expect(of(unmet.stderr, 'when-waits')).toMatchObject({ level: 'info', group, missing });
    expect(of(unmet.stderr, 'when-unmet')).toMatchObject({ level: 'warning', group, missing });
    await set('1');
    await using proxy = await startProxy(agent);
    const changed = proxy.seen(STEPS.grant).then(() => set('2'));
    proxy.rule({ match: STEPS.grant, times: 1, do: { until: changed } });
    const turned = await runlock(proxy, words('web01', '-w', '1s', ...conditions));
    expect(turned.status).toBe(75);
    expect(of(turned.stderr, 'when-gave-way')).toMatchObject({ level: 'info', group, missing });
  });

  test('every event of the table was one of these', () => {
    // Only the run of a job is left (test/cli/job-run), and few services change between each two looks (test/unit/when).
    expect([...seen, 'left', 'when-apart'].sort()).toEqual([...promised.keys()].sort());
  });
});

describe('acquire names the group, the node and the run as exec does', () => {
  const foreign = JSON.stringify({
    ...{ v: 1, node: 'web99', state: 'running', run: 'another', since: new Date().toISOString() },
    ...{ command: 'x', hold: 'forever', pid: 1, startTime: '1', bootId: 'b' },
  });
  const acquire = (group: string, node: string, ...more: string[]) =>
    runlock(agent, ['acquire', group, '--node', node, '--log-format', 'json', ...more]);

  test('when it is busy', async () => {
    const { group, place } = setup();
    const first = await acquire(group, 'web01');
    expect(JSON.parse(first.stderr)).toMatchObject({ event: 'granted', ...place('web01') });
    const { status, stderr } = await acquire(group, 'web02', '-w', '0');
    expect(status).toBe(75);
    expect(of(stderr, 'busy')).toMatchObject({ level: 'warning', group, node: 'web02', why: 'slots' });
  });

  test('when the slot is lost before it is held', async () => {
    const { group, place, key } = setup();
    await using proxy = await startProxy(agent);
    const keep: Match = (request) => writes('cas', '/owner')(request) && writes('delete', '/lock')(request);
    const taken = proxy.seen(keep).then(() => agent.kv.put(key('.slot/0/owner'), foreign));
    proxy.rule({ match: keep, times: 1, do: { until: taken } });
    const words = ['acquire', group, '--node', 'web01', '--log-format', 'json'];
    const { status, stderr } = await runlock(agent, words, { env: proxy.env });
    expect(status).toBe(79);
    expect(of(stderr, 'lost')).toMatchObject({ level: 'error', ...place('web01'), why: 'lost' });
  });
});

test('without a terminal waiting, granted and lost-in-time say nothing; -v says each in one line', async () => {
  const { hold, waiting, group } = setup();
  const holder = await hold('web01');
  const plain = groupOf(agent, group);
  const quiet = plain.start('web02', '--', 'true');
  await waiting();
  const loud = plain.start('web03', '-v', '--', 'true');
  await loud.says(/^runlock: web03 is waiting for a slot of \S+ \(slot 0: web01 running/m);
  holder.tell();
  await holder.ended;
  expect(await quiet.ended).toEqual({ status: 0, stdout: '', stderr: '' });
  expect((await loud.ended).stderr).toMatch(/^runlock: web03 acquired slot 0 of \S+ \(waited \d+s\)$/m);
});

describe('what ends runlock before its time is one object with its code', () => {
  const json = ['--log-format', 'json'];
  test.each<[string, string[], Record<string, string>, { status: number; code: string }]>([
    ['wrong usage', ['exec', ...json, '--slots', '0', '--', 'true'], {}, { status: 64, code: 'usage' }],
    ['wrong usage, by the variable', ['exec'], { RUNLOCK_LOG_FORMAT: 'json' }, { status: 64, code: 'usage' }],
    ['an option that there is not', ['status', '--log-format=json', '-x'], {}, { status: 64, code: 'usage' }],
    [
      'no such file',
      ['exec', ...json, '--config', '/nowhere', '--', 'true'],
      {},
      { status: 78, code: 'config' },
    ],
    ['no such command', ['exec', ...json, '--', '/nowhere/x'], {}, { status: 127, code: 'not-found' }],
    [
      'no Consul',
      ['status', ...json],
      { CONSUL_HTTP_ADDR: '127.0.0.1:1' },
      { status: 69, code: 'unreachable' },
    ],
  ])('%s', async (_, args, env, { status, code }) => {
    const result = await runlock(agent, args, { env });
    expect(result).toMatchObject({ status, stdout: '' });
    const lines = parse(result.stderr).filter(({ event }) => event !== 'consul-unreachable');
    expect(lines).toEqual([
      { time: lines[0]?.['time'], level: 'error', message: lines[0]?.['message'], event: 'error', code },
    ]);
    expect(page).toMatch(new RegExp(`with a \`code\`:[^.]*\`${code}\``));
  });

  test('what another program is told is not for runlock', async () => {
    const { stderr } = await runlock(agent, ['exec', '-x', '--', 'prog', '--log-format', 'json']);
    expect(stderr).toMatch(/^runlock: unknown option '-x'/);
  });

  test('the page names every code', () => {
    const [, union = ''] = /type ErrorCode =([^;]+);/.exec(readFileSync('src/errors.ts', 'utf8')) ?? [];
    const codes = [...union.matchAll(/'([\w-]+)'/g)].map(([, code = '']) => code);
    const [, said = ''] = /with a `code`:([^.]+)\./.exec(page) ?? [];
    expect(
      quoted(said)
        .map(([, name = '']) => name)
        .sort(),
    ).toEqual(codes.sort());
  });
});
