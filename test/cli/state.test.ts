// States: a short text under a path, set, read, followed and ended through the program.
import { hostname, userInfo } from 'node:os';
import { describe, expect, test } from 'vitest';
import { eventually } from '../support/processes.ts';
import { groupOf } from '../support/group.ts';
import { RUNLOCK } from '../support/program.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { startInTerminal } from '../support/terminal.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();
const me = `${userInfo().username}@${hostname()}`;

const state = (...args: string[]) => runlock(agent, ['state', ...args]);
const keyOf = (path: string) => `runlock/.state/${path}/.value`;
const stored = async (path: string) => {
  const pair = await agent.kv.get(keyOf(path));
  const document = pair && (JSON.parse(pair.Value) as { change: string; until?: string });
  return document && { ...document, index: pair.ModifyIndex };
};
/** Started by this shell script, whose "$@" is the program with its arguments. */
const throughShell = (script: string, ...args: string[]) =>
  runlock(agent, ['state', ...args], { through: ['sh', '-c', script, 'sh'] });

describe('state set', () => {
  test('publishes a value, by whom and when, and says what was there', async () => {
    expect(await state('set', 'set/one', '41')).toMatchObject({ status: 0, stdout: 'set set/one to 41\n' });
    expect((await state('set', 'set/one', '42')).stdout).toBe('set set/one to 42 (was 41)\n');
    expect(await stored('set/one')).toMatchObject({ v: 1, value: '42', by: me });
  });

  test('of the same value changes nothing; with --touch it is a change', async () => {
    await state('set', 'set/same', 'x');
    const before = await stored('set/same');
    expect((await state('set', 'set/same', 'x')).stdout).toBe('set/same is already x\n');
    expect(await stored('set/same')).toEqual(before);
    await state('set', 'set/same', 'x', '--touch');
    const after = await stored('set/same');
    expect(after?.change).not.toBe(before?.change);
    expect(after?.index).toBeGreaterThan(before?.index ?? 0);
  });

  test('of the same value with --ttl lasts longer, and is no change', async () => {
    await state('set', 'set/longer', 'x', '--ttl', '1h');
    const before = await stored('set/longer');
    expect((await state('set', 'set/longer', 'x', '--ttl', '2h')).stdout).toMatch(/; now lasts until /);
    const after = await stored('set/longer');
    expect(after?.change).toBe(before?.change);
    expect(Date.parse(after?.until ?? '')).toBeGreaterThan(Date.parse(before?.until ?? ''));
  });

  test('with --if-value sets only over that value, and exits 1 where it is another or none', async () => {
    expect(await state('set', 'set/cas', '1', '--if-value', '0')).toMatchObject({
      status: 1,
      stdout: 'set/cas is not set; nothing was changed\n',
    });
    await state('set', 'set/cas', '0');
    expect((await state('set', 'set/cas', '1', '--if-value', '0')).status).toBe(0);
    const refused = await state('set', 'set/cas', '2', '--if-value', '0');
    expect(refused.status).toBe(1);
    expect(refused.stdout).toMatch(/^set\/cas is 1, set by .* \d+s ago; nothing was changed\n$/);
    expect(await stored('set/cas')).toMatchObject({ value: '1' });
  });

  test('with --if-absent sets only what is not there; what is past its end is not', async () => {
    expect((await state('set', 'set/new', '1', '--if-absent')).status).toBe(0);
    expect((await state('set', 'set/new', '2', '--if-absent')).status).toBe(1);
    const ended = { v: 1, value: 'x', change: 'c', by: 'b', at: '2026-01-01T00:00:00Z' };
    await agent.kv.put(keyOf('set/ended'), JSON.stringify({ ...ended, until: '2026-01-01T00:01:00Z' }));
    expect(await state('set', 'set/ended', '2', '--if-absent')).toMatchObject({
      status: 0,
      stdout: 'set set/ended to 2\n',
    });
  });

  test('with --if-value takes the value of a state past its end for none', async () => {
    const ended = { v: 1, value: 'x', change: 'c', by: 'b', at: '2026-01-01T00:00:00Z' };
    await agent.kv.put(keyOf('set/past'), JSON.stringify({ ...ended, until: '2026-01-01T00:01:00Z' }));
    expect(await state('set', 'set/past', '2', '--if-value', 'x')).toMatchObject({
      status: 1,
      stdout: 'set/past is not set; nothing was changed\n',
    });
    // The same value is a change then, and not the old one that lasts longer.
    expect((await state('set', 'set/past', 'x')).stdout).toBe('set set/past to x\n');
    expect((await stored('set/past'))?.change).not.toBe('c');
  });

  test('of the same value takes the new end: later, earlier, or none', async () => {
    const untilOf = async () => Date.parse((await stored('set/ends'))?.until ?? '');
    await state('set', 'set/ends', 'x', '--ttl', '2h');
    const first = await untilOf();
    const earlier = await state('set', 'set/ends', 'x', '--ttl', '1h');
    expect(earlier.stdout).toMatch(/^set\/ends is already x; now lasts until \S+ \(in (?:1h|59m59s)\)\n$/);
    expect(await untilOf()).toBeLessThan(first);
    expect((await state('set', 'set/ends', 'x', '--json')).stdout).toContain('"kind": "extended"');
    expect(await stored('set/ends')).not.toHaveProperty('until');
  });

  test('of two writers at once with --if-value one wins, and the other exits 1', async () => {
    await state('set', 'set/race', '0');
    const writers = ['a', 'b', 'c', 'd'].map((value) => state('set', 'set/race', value, '--if-value', '0'));
    const ended = await Promise.all(writers);
    expect(ended.map(({ status }) => status).sort()).toEqual([0, 1, 1, 1]);
  });

  test('keeps quotes, line breaks and 4,096 bytes as they are, and refuses one byte more', async () => {
    const odd = `"it's"\n\t$(x) \\ ü 🦆`;
    await state('set', 'set/odd', odd);
    expect((await state('get', 'set/odd')).stdout).toBe(`${odd}\n`);
    const most = 'ü'.repeat(2_048);
    expect((await state('set', 'set/most', most)).status).toBe(0);
    expect((await state('get', 'set/most')).stdout).toBe(`${most}\n`);
    const more = await state('set', 'set/most', `${most}a`);
    expect(more).toMatchObject({ status: 64, stdout: '' });
    expect(more.stderr).toMatch(/^runlock: this value has 4,097 bytes; 4,096 are allowed/);
  });

  test('reads - from stdin, without a line break at its end, so that get and set fit', async () => {
    expect((await runlock(agent, ['state', 'set', 'in/one', '-'], { input: 'a\nb\n' })).status).toBe(0);
    const { stdout } = await state('get', 'in/one');
    expect((await runlock(agent, ['state', 'set', 'in/two', '-'], { input: stdout })).status).toBe(0);
    expect(await stored('in/one')).toMatchObject({ value: 'a\nb' });
    expect(await stored('in/two')).toMatchObject({ value: 'a\nb' });
  });

  test.each([
    ['as an argument', 'exec "$@" "$(printf "\\377")"', []],
    ['in --if-value', 'exec "$@" x --if-value="$(printf "\\377")"', []],
    ['from stdin', 'printf "\\377" | "$@"', ['-']],
  ])('refuses bytes that are not UTF-8 %s', async (_name, script, args) => {
    const { status, stderr } = await throughShell(script, 'set', 'in/bytes', ...args);
    expect({ status, stderr }).toEqual({
      status: 64,
      stderr: 'runlock: this value is not UTF-8; publish text, such as its base64\n',
    });
    expect(await stored('in/bytes')).toBeUndefined();
  });

  test('inside a run names the run and its node', async () => {
    const group = groupOf(agent, 'state/inside');
    const run = await group.exec('web07', '--', RUNLOCK, 'state', 'set', 'set/inside', '1');
    expect(run.status).toBe(0);
    const { run: id } = (await group.lastRun('web07')) ?? {};
    expect(await stored('set/inside')).toMatchObject({ by: 'web07', run: id });
  });

  test('takes no path that a group could not have, and says what is right', async () => {
    for (const path of ['a//b', '.hidden', 'a/../b', '-x/y', 'ä']) {
      const { status, stderr } = await state('set', '--', path, '1');
      expect({ path, status }).toEqual({ path, status: 64 });
      expect(stderr).toContain('is not a valid state path; write one like db/schema');
    }
  });

  test.each([
    [['set', 'a'], /takes a path and a value/],
    [['set', 'a', 'b', 'c'], /takes a path and a value/],
    [['set', 'a', 'b', '--if-value', 'x', '--if-absent'], /exclude each other/],
    [['get'], /state get takes one path/],
    [['get', 'a', '--ttl', '1s'], /--ttl is for 'state set' only/],
    [['list', 'a', 'b'], /one path at most/],
    [['prune', 'a'], /takes no path/],
  ])('%j is wrong usage', async (args, pattern) => {
    const { status, stderr } = await state(...args);
    expect(status).toBe(64);
    expect(stderr).toMatch(pattern);
  });
});

describe('state get', () => {
  test('of what is not set exits 1 and prints nothing; as JSON it says so', async () => {
    expect(await state('get', 'get/none')).toEqual({
      status: 1,
      stdout: '',
      stderr: 'runlock: get/none is not set\n',
    });
    const { status, stdout } = await state('get', 'get/none', '--json');
    expect({ status, said: JSON.parse(stdout) as unknown }).toEqual({
      status: 1,
      said: { v: 1, path: 'get/none', set: false },
    });
  });

  test('as JSON says all that is known of it', async () => {
    await state('set', 'get/json', 'x', '--ttl', '1h');
    const { stdout } = await state('get', 'get/json', '--json');
    expect(JSON.parse(stdout)).toEqual({
      ...{ v: 1, path: 'get/json', set: true, value: 'x', by: me },
      change: expect.any(String) as string,
      at: expect.any(String) as string,
      until: expect.any(String) as string,
    });
  });

  test('shows a terminal no escape, and a pipe the value as it is', async () => {
    const value = 'red \x1b[31m\nnext';
    await state('set', 'get/escape', value);
    expect((await state('get', 'get/escape')).stdout).toBe(`${value}\n`);
    const shown = startInTerminal(agent, ['state', 'get', 'get/escape']);
    expect(await shown.ended).toBe(0);
    expect(shown.screen()).toContain('red \\x1b[31m');
    expect(shown.screen()).not.toContain('\x1b[31m');
    const listed = await state('list', 'get/escape');
    expect(listed.stdout).toContain("'red \\x1b[31m\\nnext'");
  });

  test('of a document of a newer version, or of something else, exits 78 and names the key', async () => {
    await agent.kv.put(keyOf('get/newer'), '{"v":2}');
    await agent.kv.put(keyOf('get/other'), 'hand-made');
    for (const [path, pattern] of [
      ['get/newer', /written by a newer runlock/],
      ['get/other', /not a state that runlock wrote/],
    ] as const) {
      const { status, stderr } = await state('get', path);
      expect({ path, status }).toEqual({ path, status: 78 });
      expect(stderr).toMatch(pattern);
      await agent.kv.delete(keyOf(path));
    }
  });
});

describe('the end of a state', () => {
  const ended = (ms: number) =>
    JSON.stringify({
      ...{ v: 1, value: 'x', change: 'c', by: 'b', at: '2026-01-01T00:00:00Z' },
      until: new Date(Date.now() + ms).toISOString(),
    });

  test('is 5 s later for readers, whose clocks may differ; then it is not set anywhere', async () => {
    await agent.kv.put(keyOf('end/soon'), ended(-2_000));
    expect((await state('get', 'end/soon')).status).toBe(0);
    await agent.kv.put(keyOf('end/gone'), ended(-5_100));
    expect((await state('get', 'end/gone')).status).toBe(1);
    expect((await state('list', 'end')).stdout).not.toContain('end/gone');
    expect((await state('delete', 'end/gone')).stdout).toBe('end/gone is not set\n');
    expect(await stored('end/gone')).toBeUndefined();
  });

  test('leaves its key until prune deletes it, and prune deletes nothing else', async () => {
    await agent.kv.put(keyOf('prune/ended'), ended(-6_000));
    await state('set', 'prune/lasts', 'x', '--ttl', '1h');
    const { status, stdout } = await state('prune', '--json');
    const { pruned } = JSON.parse(stdout) as { pruned: string[] };
    expect(status).toBe(0);
    expect(pruned).toContain('prune/ended');
    expect(pruned).not.toContain('prune/lasts');
    expect(await stored('prune/ended')).toBeUndefined();
    expect(await stored('prune/lasts')).toBeDefined();
  });
});

test('state delete ends a state, and of what is not set says so with exit 0', async () => {
  await state('set', 'delete/one', '1');
  expect((await state('delete', 'delete/one')).stdout).toMatch(/^deleted delete\/one \(was 1, set by /);
  expect(await state('delete', 'delete/one')).toMatchObject({ status: 0, stdout: 'delete/one is not set\n' });
});

test('state list shows what is at a path and below it, sorted, and nothing beside it', async () => {
  for (const path of ['list/db', 'list/db/b', 'list/db/a', 'list/dbx']) await state('set', path, '1');
  const paths = async (...args: string[]) => {
    const { stdout } = await state('list', ...args, '--json');
    return (JSON.parse(stdout) as { states: { path: string }[] }).states.map(({ path }) => path);
  };
  expect(await paths('list/db/')).toEqual(['list/db', 'list/db/a', 'list/db/b']);
  expect(await paths('list/db')).toEqual(await paths('list/db/'));
  expect(await paths()).toEqual(expect.arrayContaining(['list/db', 'list/dbx']));
  expect((await state('list', 'list/none')).stdout).toBe('no state is set at list/none or below it\n');
});

describe('state watch', () => {
  const lines = (text: string) =>
    text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { path: string; set: boolean; value?: string });

  test('prints what is there, each change, and the end; Ctrl-C ends it with 0', async () => {
    await state('set', 'watch/a', '1');
    const watching = startRunlock(agent, ['state', 'watch', 'watch/a', 'watch/b', '--json']);
    await eventually(() => expect(lines(watching.stdout())).toHaveLength(2));
    await state('set', 'watch/a', '2');
    await eventually(() => expect(lines(watching.stdout())).toHaveLength(3));
    await state('set', 'watch/a', '2');
    await state('delete', 'watch/a');
    await eventually(() => expect(lines(watching.stdout())).toHaveLength(4));
    watching.signal('SIGINT');
    const { status, stdout } = await watching.ended;
    expect(status).toBe(0);
    expect(
      lines(stdout)
        .filter(({ path }) => path === 'watch/a')
        .map(({ set, value }) => [set, value]),
    ).toEqual([
      [true, '1'],
      [true, '2'],
      [false, undefined],
    ]);
    expect(lines(stdout).filter(({ path }) => path === 'watch/b')).toMatchObject([{ set: false }]);
  });

  test('without a path follows all, new ones too; a state that ends by itself is told', async () => {
    const watching = startRunlock(agent, ['state', 'watch']);
    await state('set', 'watch/new', 'x', '--ttl', '1s');
    await eventually(() => expect(watching.stdout()).toMatch(/watch\/new is x, set by /));
    await eventually(() => expect(watching.stdout()).toMatch(/watch\/new is not set/), 15_000);
    watching.signal('SIGTERM');
    expect((await watching.ended).status).toBe(143);
  });
});

test('state watch refuses more paths than leave connections to the runs of its host', async () => {
  const paths = Array.from({ length: 65 }, (_, i) => `many/s${i}`);
  expect(await state('watch', ...paths)).toEqual({
    ...{ status: 64, stdout: '' },
    stderr:
      'runlock: state watch follows at most 64 paths, not 65; give fewer, or none to follow all states\n',
  });
});
