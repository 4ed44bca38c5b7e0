// The configuration file, as commands and `runlock config` see it. What it may say is in test/unit/config.test.ts.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { RUNLOCK, preloading } from '../support/program.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { startInTerminal } from '../support/terminal.ts';

const agent = useAgent();

const USUAL = '/etc/runlock/config.toml';

/** A file with these lines, gone after the test. */
function fileOf(...lines: readonly string[]): string {
  const path = join(stage().folder, 'config.toml');
  writeFileSync(path, lines.map((line) => `${line}\n`).join(''));
  return path;
}

/** What the command of `exec` sees of its node. */
async function nodeOf(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> {
  const words = ['exec', ...args, '--', 'sh', '-c', 'echo "$RUNLOCK_RUN_NODE"'];
  const { status, stdout, stderr } = await runlock(agent, words, { env });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout.trim();
}

describe('a flag comes before the environment, that before the file, that before the default', () => {
  test('for what a run does, with each pair', async () => {
    const file = fileOf('node = "of-file"', 'group = "order"', '[groups."order/web"]', 'node = "of-section"');
    const RUNLOCK_NODE = 'of-env';
    const byDefault = await nodeOf(['-g', 'order/plain', '--config', '/dev/null']);
    expect(byDefault).not.toMatch(/^of-/);
    expect(await nodeOf(['--config', file])).toBe('of-file');
    expect(await nodeOf([], { RUNLOCK_CONFIG: file })).toBe('of-file');
    expect(await nodeOf(['--config', file, '-g', 'order/web/a'])).toBe('of-section');
    expect(await nodeOf(['--config', file, '-g', 'order/web'], { RUNLOCK_NODE })).toBe('of-env');
    expect(await nodeOf(['--config', file, '--node', 'of-flag'], { RUNLOCK_NODE })).toBe('of-flag');
    expect(await nodeOf(['--config', file, '--node', 'of-flag'])).toBe('of-flag');
    expect(await nodeOf(['--node', 'of-flag'], { RUNLOCK_NODE })).toBe('of-flag');
    expect(await agent.kv.keys('runlock/order/.runs/')).toEqual(
      expect.arrayContaining(['runlock/order/.runs/of-file']),
    );
  });

  test('for the file itself', async () => {
    const [one, two] = [fileOf('node = "one"', 'group = "which"'), fileOf('node = "two"', 'group = "which"')];
    expect(await nodeOf(['--config', one], { RUNLOCK_CONFIG: two })).toBe('one');
    expect(await nodeOf([], { RUNLOCK_CONFIG: two })).toBe('two');
  });
});

describe("a group's section", () => {
  const hold = (file: string, group: string, node: string) => {
    const { folder, pid } = stage();
    const script = `echo $$ >${folder}/command.pid; exec sleep 300`;
    const args = ['exec', '--config', file, '-g', group, '--node', node, '--', 'sh', '-c', script];
    return { run: startRunlock(agent, args), runs: () => pid('command') };
  };

  test('with slots = 2 lets two run at once, and no third', async () => {
    const file = fileOf('wait = "1m"', '[groups."two/web"]', 'slots = 2');
    const [one, two] = [hold(file, 'two/web', 'web01'), hold(file, 'two/web', 'web02')];
    await one.runs();
    await two.runs();
    const third = ['exec', '--config', file, '-g', 'two/web', '--node', 'web03', '-w', '0', '--', 'true'];
    const busy = await runlock(agent, third);
    expect(busy.status).toBe(75);
    expect(busy.stderr).toMatch(/^runlock: busy: /);
    for (const { run } of [one, two]) run.signal('SIGTERM');
    for (const { run } of [one, two]) expect((await run.ended).status).toBe(143);
  });

  test('says nothing about the group beside it', async () => {
    const file = fileOf('wait = 0', '[groups."two/web"]', 'slots = 2');
    const one = hold(file, 'two/db', 'db01');
    await one.runs();
    const second = ['exec', '--config', file, '-g', 'two/db', '--node', 'db02', '--', 'true'];
    expect((await runlock(agent, second)).status).toBe(75);
    one.run.signal('SIGTERM');
    await one.run.ended;
  });
});

describe('when the file is wrong, nothing is run, and one line says why', () => {
  /** Runs exec with the file and expects that it refuses: its one line, without the name of the program. */
  async function refused(
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): Promise<string> {
    const ran = join(stage().folder, 'ran');
    const words = ['exec', '-g', 'refused', ...args, '--', 'touch', ran];
    const { status, stdout, stderr } = await runlock(agent, words, { env });
    expect({ status, stdout }).toEqual({ status: 78, stdout: '' });
    expect(stderr).toMatch(/^runlock: [^\n]+\n$/);
    expect(existsSync(ran)).toBe(false);
    expect(await agent.kv.keys('runlock/refused/')).toEqual([]);
    return stderr.slice('runlock: '.length, -1);
  }

  test.each<[string, string[], string]>([
    [
      'a key',
      ['', '[groups."prod/web"]', 'slotz = 3'],
      `:3: unknown key 'slotz' in [groups."prod/web"]; did you mean 'slots'?`,
    ],
    ['a value', ['slots = 0'], ':1: slots = 0: not a whole number from 1 to 100000'],
    [
      'a section',
      ['[exec]'],
      `:1: unknown section [exec]; options go at the top, or in a group's section like [groups."prod/web"]`,
    ],
    ['what is for one call', ['force = true'], ":1: 'force' is not allowed in a file; use the flag --force"],
    [
      'a key that is near one for a single call',
      ['', '[groups."prod/web"]', 'slot = 3'],
      ":3: 'slot' is not allowed in a file; did you mean 'slots'?",
    ],
    [
      'a quote that is not closed',
      ['slots = 3', '[groups."prod/web]', 'wait = "1h"'],
      ':2:9: unclosed quote: write " on both sides of the text',
    ],
    [
      'a quote of several lines that is not closed',
      ["# it's", "node = 'x'", 'wait = """1h', "group = 'y'"],
      ':3:8: unclosed quote: write """ on both sides of the text',
    ],
    [
      'a section without the word groups',
      ['[prod/web]'],
      `:1:6: not TOML: illegal character in key; a group's section is [groups."prod/web"]`,
    ],
    [
      'no TOML',
      ['wait = 30m'],
      ':1:10: not TOML: illegal character in numeric literal; a text needs quotes: wait = "30m"',
    ],
  ])('%s', async (_, lines, message) => {
    const file = fileOf(...lines);
    expect(await refused(['--config', file])).toBe(`${file}${message}`);
    expect(await refused([], { RUNLOCK_CONFIG: file })).toBe(`${file}${message}`);
  });

  test('a file that is not there, or is a folder', async () => {
    expect(await refused(['--config', '/nowhere.toml'])).toMatch(/^--config \/nowhere\.toml: no such file; /);
    expect(await refused([], { RUNLOCK_CONFIG: '/nowhere.toml' })).toMatch(
      /^RUNLOCK_CONFIG=\/nowhere\.toml: no such/,
    );
    expect(await refused(['--config', '/'])).toMatch(/^--config \/: it is a folder; /);
  });

  test('what it quotes cannot speak to the terminal', async () => {
    const file = fileOf('hold = "\\u001b[2J"', '');
    expect(await refused(['--config', file])).toContain('\\u001b[2J');
  });

  test('the same for every command', async () => {
    const file = fileOf('slotz = 3');
    for (const args of [['status'], ['release'], ['history'], ['config'], ['thaw', 'a']]) {
      const { status, stdout, stderr } = await runlock(agent, [...args, '--config', file]);
      expect({ args, status, stdout }).toEqual({ args, status: 78, stdout: '' });
      expect(stderr).toBe(`runlock: ${file}:1: unknown key 'slotz'; did you mean 'slots'?\n`);
    }
  });
});

describe('the usual file', () => {
  /** An environment in which this stands in for `/etc/runlock/config.toml`. */
  function spy(answer: string, file = USUAL) {
    const { folder } = stage();
    const hook = join(folder, 'hook.cjs');
    writeFileSync(
      hook,
      `const fs = require('node:fs');
       const { openSync, lstatSync } = fs;
       fs.openSync = (path, ...rest) => {
         if (path === ${JSON.stringify(USUAL)}) { ${answer} }
         return openSync(path, ...rest);
       };
       fs.lstatSync = (path, ...rest) => {
         if (path === ${JSON.stringify(USUAL)}) return lstatSync(${JSON.stringify(file)}, ...rest);
         return lstatSync(path === ${JSON.stringify(dirname(USUAL))} ? '/etc' : path, ...rest);
       };`,
    );
    return preloading(hook);
  }
  const isFile = (file: string) => ({
    ...spy(`return openSync(${JSON.stringify(file)});`, file),
    RUNLOCK_CONFIG: undefined,
  });
  const usual = (answer: string) => ({ ...spy(answer), RUNLOCK_CONFIG: undefined });
  const throws = (code: string) => `throw Object.assign(new Error('${code}'), { code: '${code}' });`;

  test('is not read by the tests of everything else', async () => {
    const env = spy(throws('EACCES'));
    expect(await runlock(undefined, ['config'], { env })).toMatchObject({ status: 0 });
    expect(await startInTerminal(agent, ['config'], { env }).ended).toBe(0);
    const child = spawn(RUNLOCK, ['config'], { env: { ...process.env, ...env }, stdio: 'ignore' });
    expect(await once(child, 'close')).toEqual([0, null]);
  });

  test('is read when there is one', async () => {
    const file = fileOf('node = "of-etc"');
    const env = isFile(file);
    const { status, stdout } = await runlock(undefined, ['config'], { env });
    expect(status).toBe(0);
    expect(stdout).toMatch(/^ {2}node +of-etc +\/etc\/runlock\/config\.toml:1$/m);
  });

  test('is refused by root if others can write it', async () => {
    const file = fileOf('wait = "1s"');
    chmodSync(file, 0o606);
    const env = { ...isFile(file), RUNLOCK_GROUP: 'cfg/open' };
    const { status, stderr } = await runlock(agent, ['exec', '--', '/bin/true'], { env });
    const refused = process.getuid?.() === 0;
    expect({ status, refused: stderr.includes(`${USUAL}: its group or other users can write it`) }).toEqual({
      status: refused ? 78 : 0,
      refused,
    });
  });

  test('need not be there', async () => {
    const env = usual(throws('ENOENT'));
    const words = ['exec', '-g', 'none', '--node', 'web01', '--', 'echo', 'ran'];
    expect(await runlock(agent, words, { env })).toEqual({ status: 0, stdout: 'ran\n', stderr: '' });
  });

  test('must be readable when it is there', async () => {
    const env = usual(throws('EACCES'));
    const { status, stdout, stderr } = await runlock(agent, ['exec', '--', 'echo', 'ran'], { env });
    expect({ status, stdout }).toEqual({ status: 78, stdout: '' });
    expect(stderr).toBe(
      `runlock: ${USUAL}: permission denied; make it readable for this user, or name another file with --config\n`,
    );
  });
});

describe('runlock config', () => {
  const file = () =>
    fileOf('wait = "30m"', 'ok_codes = [0, 213]', '', '[groups.prod]', 'slots = 3', 'splay = "5m"');
  const env = { RUNLOCK_HOLD: '4h', RUNLOCK_SPLAY: '1m' };

  test('says what each option is, and where from', async () => {
    const path = file();
    const args = ['config', '--config', path, '-g', 'prod/web'];
    const { status, stdout, stderr } = await runlock(undefined, args, { env });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const [title, ...lines] = stdout.split('\n').map((line) => line.trim().replaceAll(/ {2,}/g, ' | '));
    expect(title).toBe(`runlock exec in prod/web, from ${path}`);
    expect(lines.slice(0, 6)).toEqual([
      'OPTION | VALUE | FROM',
      'group | prod/web | flag',
      `slots | 3 | ${path}:5 [groups."prod"]`,
      `wait | 30m | ${path}:1`,
      'splay | 1m | RUNLOCK_SPLAY',
      'hold | 4h | RUNLOCK_HOLD',
    ]);
    expect(lines).toContain(`ok_codes | 0,213 | ${path}:2`);
    expect(lines).toContain('kill_after | 10s | default');
    expect(lines).toContain('timeout | (none) | default');
  });

  test('--json says the same, with stable names', async () => {
    const path = file();
    const args = ['config', '--json', '--config', path, '-g', 'prod'];
    const { status, stdout } = await runlock(undefined, args, { env });
    expect(status).toBe(0);
    const { options, ...rest } = JSON.parse(stdout) as { options: Record<string, unknown>[] };
    expect(rest).toEqual({ v: 1, command: 'exec', groups: ['prod'], file: { path, found: true } });
    expect(options).toEqual(
      expect.arrayContaining([
        { option: 'group', value: 'prod', from: 'flag' },
        { option: 'slots', value: '3', from: 'file', line: 5, section: 'prod' },
        { option: 'wait', value: '30m', from: 'file', line: 1 },
        { option: 'splay', value: '1m', from: 'environment', variable: 'RUNLOCK_SPLAY' },
        { option: 'timeout', value: null, from: 'default' },
        { option: 'reboot_codes', value: null, from: 'default', means: 'by tool' },
        { option: 'kill_after', value: '10s', from: 'default' },
      ]),
    );
  });

  test('of another command, and of one that there is not', async () => {
    const { stdout } = await runlock(undefined, ['config', 'release', '--config', file()], { env });
    expect(stdout).toMatch(
      /^runlock release in default, from .*\n {2}OPTION[^]*^ {2}owner +\(the agent's node\) +default$/m,
    );
    expect(await runlock(undefined, ['config', 'exce'])).toEqual({
      ...{ status: 64, stdout: '', stderr: "runlock: unknown command 'exce'; see 'runlock --help'\n" },
    });
  });

  test('shows a person in a terminal the same, with what is only a default held back', async () => {
    const run = startInTerminal(agent, ['config', '--config', file()]);
    expect(await run.ended).toBe(0);
    const [bold, dim, plain] = ['\u001b[1m', '\u001b[2m', '\u001b[22m'];
    const lines = run
      .screen()
      .split('\r\n')
      .map((line) => line.replaceAll(/ {2,}/g, ' | '));
    expect(lines[0]?.startsWith(`${bold}runlock exec in default, from `)).toBe(true);
    expect(lines).toContain(`${dim} | kill_after | 10s | default${plain}`);
    expect(lines.find((line) => line.startsWith(' | wait | '))).toMatch(/^ \| wait \| 30m \| \//);
  });

  test('says what a run would do: the same as the run does', async () => {
    const path = fileOf('group = "same"', '[groups.same]', 'node = "web07"');
    const { stdout } = await runlock(undefined, ['config', '--config', path]);
    expect(stdout).toMatch(/^ {2}node +web07 /m);
    expect(await nodeOf(['--config', path])).toBe('web07');
  });
});

test.each([[], ['--json']])(
  'an address that has a user and password is shown without them: config exec %s',
  async (...json) => {
    const env = { RUNLOCK_AGENT: 'http://me:secret@127.0.0.1:1' };
    const { status, stdout } = await runlock(undefined, ['config', 'exec', ...json], { env });
    expect(status).toBe(0);
    expect(stdout).toContain('http://…@127.0.0.1:1');
    expect(stdout).not.toMatch(/me:|secret/);
  },
);

describe('config of any command names no group that is none', () => {
  test.each('exec acquire status release history freeze thaw gate doctor completion config'.split(' '))(
    '%s',
    async (name) => {
      const { status, stdout, stderr } = await runlock(agent, ['config', name, '--config', '/dev/null']);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      expect(stdout).not.toMatch(/undefined|NaN|\[object/);
      const looks = ['status', 'history', 'freeze', 'thaw', 'completion'].includes(name);
      expect(stdout.split('\n')[0]).toBe(`runlock ${name}${looks ? '' : ' in default'}, from /dev/null`);
      const json = await runlock(agent, ['config', name, '--json', '--config', '/dev/null']);
      expect((JSON.parse(json.stdout) as { groups: string[] }).groups).toEqual(looks ? [] : ['default']);
    },
  );

  test('and says of a command that looks what its flag says, not what is said of runs', async () => {
    const env = { RUNLOCK_GROUP: 'of/runs' };
    const file = fileOf('group = "of/file"', '[groups."prod/web"]', 'quiet = true');
    const plain = await runlock(agent, ['config', 'history', '--config', file], { env });
    expect(plain.stdout).toMatch(/^runlock history, from .*\n(?:.*\n)* {2}group +\(none\) +default\n/);
    const { stdout } = await runlock(agent, ['config', 'history', '-g', 'prod/web', '--config', file]);
    expect(stdout).toMatch(/^runlock history in prod\/web, from .*\n(?:.*\n)* {2}group +prod\/web +flag\n/);
    expect(stdout).toContain(`quiet       true      ${file}:3 [groups."prod/web"]`);
  });
});

test('config in a pipe is never cut, whatever COLUMNS says', async () => {
  const wide = await runlock(agent, ['config', '--config', '/dev/null'], { env: { COLUMNS: undefined } });
  const narrow = await runlock(agent, ['config', '--config', '/dev/null'], { env: { COLUMNS: '30' } });
  expect(narrow).toEqual(wide);
});
