// What `runlock state` does about what is wrong: contents that it can't read, stdin without a value, paths, spans.
import { describe, expect, test } from 'vitest';
import { eventually } from '../support/processes.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { startInTerminal } from '../support/terminal.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

const state = (...args: string[]) => runlock(agent, ['state', ...args]);
const keyOf = (path: string) => `runlock/.state/${path}/.value`;
const indexOf = async (path: string) => (await agent.kv.get(keyOf(path)))?.ModifyIndex;
/** Started by this shell script, whose "$@" is the program with its arguments. */
const throughShell = (script: string, ...args: string[]) =>
  runlock(agent, ['state', ...args], { through: ['sh', '-c', script, 'sh'] });

describe.each([
  ['of a newer format', '{"v":2,"value":"x"}', /written by a newer runlock/],
  [
    'that something else wrote',
    'hand-made \x1b[31m',
    /delete it with 'runlock state delete [\w/-]+\/bad' if/,
  ],
])('a state %s', (name, contents, why) => {
  const folder = name.replaceAll(' ', '-');
  const bad = `${folder}/bad`;
  const setUp = async () => {
    await state('set', `${folder}/good`, '1');
    await agent.kv.put(keyOf(bad), contents);
  };

  test('is named by list, which shows the others', async () => {
    await setUp();
    const { status, stdout, stderr } = await state('list', folder);
    expect(status).toBe(0);
    expect(stdout).toContain(`${folder}/good  1`);
    expect(stderr.split('\n').filter(Boolean)).toEqual([
      expect.stringMatching(new RegExp(`^runlock: ${keyOf(bad)}: .*${why.source}`)),
    ]);
    const report = JSON.parse((await state('list', folder, '--json')).stdout) as {
      states: { path: string }[];
      unreadable: { path: string; why: string }[];
    };
    expect(report.states.map(({ path }) => path)).toEqual([`${folder}/good`]);
    expect(report.unreadable).toMatchObject([{ path: bad, why: expect.stringMatching(why) as string }]);
  });

  test('alone is not called nothing', async () => {
    await setUp();
    await state('delete', `${folder}/good`);
    expect((await state('list', folder)).stdout).toBe(`no state can be read at ${folder} or below it\n`);
  });

  test('is left alone and named by prune, which removes what has ended', async () => {
    await setUp();
    const ended = { v: 1, value: 'x', change: 'c', by: 'b', at: '2026-01-01T00:00:00Z' };
    const until = '2026-01-01T00:01:00Z';
    await agent.kv.put(keyOf(`${folder}/ended`), JSON.stringify({ ...ended, until }));
    const { status, stdout, stderr } = await state('prune');
    expect({ status, stdout }).toEqual({ status: 0, stdout: `deleted ${folder}/ended (ended)\n` });
    expect(stderr).toMatch(why);
    expect(await indexOf(bad)).toBeDefined();
  });

  test('is a line of watch, which goes on with the others and with its next value', async () => {
    await setUp();
    const watching = startRunlock(agent, ['state', 'watch']);
    await eventually(() => expect(watching.stdout()).toContain(`${bad} can't be read: ${keyOf(bad)}: `));
    await eventually(() => expect(watching.stdout()).toContain(`${folder}/good is 1`));
    expect(watching.stdout()).not.toContain('\x1b');
    await state('set', `${folder}/good`, '2');
    await eventually(() => expect(watching.stdout()).toContain(`${folder}/good is 2`));
    await state('delete', bad);
    await eventually(() => expect(watching.stdout()).toContain(`${bad} is not set`));
    watching.signal('SIGINT');
    expect((await watching.ended).status).toBe(0);
  });

  test('followed alone is told as there, but unreadable', async () => {
    await setUp();
    const watching = startRunlock(agent, ['state', 'watch', bad, '--json']);
    await eventually(() => expect(watching.stdout()).toContain('\n'));
    expect(JSON.parse(watching.stdout())).toEqual({
      ...{ v: 1, path: bad, set: true },
      unreadable: expect.stringMatching(why) as string,
    });
    watching.signal('SIGINT');
    await watching.ended;
  });

  test('is refused by get and set, and can be deleted', async () => {
    await setUp();
    for (const args of [
      ['get', bad],
      ['set', bad, '1'],
      ['set', bad, '1', '--if-absent'],
    ]) {
      const { status, stdout, stderr } = await state(...args);
      expect({ args, status, stdout }).toEqual({ args, status: 78, stdout: '' });
      expect(stderr).toMatch(why);
    }
    expect(await state('delete', bad)).toEqual({
      status: 0,
      stdout: `deleted ${bad} (it could not be read)\n`,
      stderr: '',
    });
    expect(await indexOf(bad)).toBeUndefined();
  });
});

describe('state set PATH - takes no value for nothing:', () => {
  test.each([
    ['closed', 'exec "$@" <&-'],
    ['empty', 'exec "$@" </dev/null'],
    ['a pipe that nothing comes from', 'false | "$@"'],
  ])('stdin is %s', async (_name, script) => {
    const before = await indexOf('in/none');
    expect(await throughShell(script, 'set', 'in/none', '-')).toEqual({
      status: 64,
      stdout: '',
      stderr:
        "runlock: stdin is empty or closed; give the value there, or '' in place of - to publish an empty value\n",
    });
    expect(await indexOf('in/none')).toBe(before);
  });

  test.each([
    ['a folder', 'exec "$@" </', 'it is a folder'],
    ['open for writing alone', 'exec "$@" 0>/dev/null', 'it is not open for reading'],
    ['without an end', 'exec "$@" </dev/zero', 'it holds more than 1 MiB'],
  ])('stdin is %s', async (_name, script, why) => {
    const { status, stderr } = await throughShell(script, 'set', 'in/none', '-');
    expect({ status, stderr }).toEqual({
      status: 64,
      stderr: `runlock: stdin: ${why}; give a value of up to 4,096 bytes of UTF-8\n`,
    });
    expect(await indexOf('in/none')).toBeUndefined();
  });

  test('but an empty line is the empty value, and so is an empty word', async () => {
    expect((await throughShell('echo | "$@"', 'set', 'in/line', '-')).stdout).toBe("set in/line to ''\n");
    expect((await state('set', 'in/word', '')).stdout).toBe("set in/word to ''\n");
  });

  test('and a terminal is read until Ctrl-D', async () => {
    const typing = startInTerminal(agent, ['state', 'set', 'in/typed', '-']);
    typing.type('42\n\x04');
    expect(await typing.ended).toBe(0);
    expect((await state('get', 'in/typed')).stdout).toBe('42\n');
  });
});

describe('bytes that are not UTF-8 are refused', () => {
  test.each([
    [
      'beside the very character that stands for them',
      '"$@" "$(printf "\\377")" --if-value "$(printf "\\357\\277\\275")"',
    ],
    ['in the middle of a character', '"$@" "$(printf "x\\360\\237")"'],
    ['as half of a surrogate pair', '"$@" "$(printf "\\355\\240\\200")"'],
    ['in a variable', 'RUNLOCK_IF_VALUE=$(printf "\\377") "$@" x'],
  ])('%s', async (_name, script) => {
    await state('set', 'in/bytes', '\uFFFD');
    const before = await indexOf('in/bytes');
    expect(await throughShell(script, 'set', 'in/bytes')).toEqual({
      status: 64,
      stdout: '',
      stderr: 'runlock: this value is not UTF-8; publish text, such as its base64\n',
    });
    expect(await indexOf('in/bytes')).toBe(before);
  });

  test('but the character that stands for them is one like any other', async () => {
    await state('set', 'in/replacement', '\uFFFD');
    expect((await state('set', 'in/replacement', '1', '--if-value', '\uFFFD')).status).toBe(0);
    expect((await throughShell('RUNLOCK_IF_VALUE=1 "$@" x', 'set', 'in/replacement')).status).toBe(0);
  });
});

describe('a path that can be none is refused in one line that shows what was typed:', () => {
  const deep = Array.from({ length: 51 }, () => 'a').join('/');
  test.each([
    [['list', '/'], "'/' is not a valid state path"],
    [['list', 'db//'], "'db//' is not a valid state path"],
    [['list', '/db'], "'/db' is not a valid state path"],
    [['get', ''], "'' is not a valid state path"],
    [['get', 'db/.value'], "'db/.value' is not a valid state path"],
    [['get', '.open'], "'.open' is not a valid state path"],
    [['get', 'db/../web'], "'db/../web' is not a valid state path"],
    [['delete', 'db/'], "'db/' is not a valid state path"],
    [['watch', 'db/a', 'a\nb'], "'a\\x0ab' is not a valid state path"],
    [['set', 'a\x1b[31m', '1'], "'a\\x1b[31m' is not a valid state path"],
    [['get', 'a'.repeat(513)], 'this state path has 513 characters; 200 are allowed'],
    [['get', ' '.repeat(513)], 'this state path has 513 characters; 200 are allowed'],
    [['get', deep], 'this state path is 51 levels deep; 50 are allowed'],
  ])('state %j', async (args, start) => {
    const { status, stdout, stderr } = await state(...args);
    expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
    expect(stderr.startsWith(`runlock: ${start}`)).toBe(true);
    expect(stderr.indexOf('\n')).toBe(stderr.length - 1);
  });
});

test.each([
  ['0', 'must be greater than 0'],
  ['0.5ms', 'must be at least 1ms'],
  ['400d', 'longer than a year; 366d is the most'],
  ['forever', 'not a duration; write it like 90s, 10m, 1h30m or 2d'],
  ['-5s', 'not a duration; write it like 90s, 10m, 1h30m or 2d'],
])('state set --ttl %s says which spans there are', async (ttl, why) => {
  expect(await state('set', 'ttl/one', '1', '--ttl', ttl)).toEqual({
    status: 64,
    stdout: '',
    stderr: `runlock: --ttl ${ttl}: ${why}\n`,
  });
});

test.each(['1ms', '366d'])('state set takes --ttl %s', async (ttl) => {
  expect((await state('set', `ttl/${ttl}`, '1', '--ttl', ttl)).status).toBe(0);
});
