// What a configuration file may say, and what is said of one that is wrong. Commands see it in test/cli/config.test.ts.
import { describe, expect, test } from 'vitest';
import { commandTree } from '../../src/cli/parse.ts';
import { commands } from '../../src/commands/registry.ts';
import { find, keysOf, settingFor } from '../../src/cli/config/apply.ts';
import { nearest } from '../../src/text/nearest.ts';
import { readStatements } from '../../src/cli/config/statements.ts';
import { readConfig } from '../../src/cli/config/read.ts';
import { RunlockError } from '../../src/errors.ts';
import { askedBy, askedOf } from '../support/command-line.ts';

type Env = Record<string, string>;

const missing = (code = 'ENOENT') => {
  throw Object.assign(new Error(code), { code });
};
const keys = keysOf(
  (await commandTree(commands, { env: {}, version: '1', readText: () => missing() })).commands,
);

const read = (text: string, argv: readonly string[], env: Env = {}) =>
  askedBy(argv, { env, version: '1', readText: () => text });

async function exec(text: string, argv: readonly string[] = [], env?: Env) {
  const invocation = await askedOf('exec', ['exec', ...argv, '--', 'true'], {
    env: env ?? {},
    version: '1',
    readText: () => text,
  });
  const [first] = invocation.options.groups;
  return {
    ...invocation.options,
    ...first,
    ...invocation.common,
    conflictExitCode: invocation.conflictExitCode,
  };
}

async function refusal(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    expect(error).toBeInstanceOf(RunlockError);
    expect(error).toMatchObject({ code: 'config' });
    const { message } = error as Error;
    expect(message).not.toContain('\n');
    return message;
  }
  throw new Error('it was accepted');
}

const complaint = (text: string) => refusal(read(text, ['exec', '--config', 'c.toml', '--', 'true']));

describe('a file', () => {
  test.each(['', '\n\n', '# wait = "1s"\n\n  # slots = 4\n\t'])(
    'of comments alone says nothing: %j',
    async (text) => {
      expect(await exec(text)).toMatchObject({ wait: 3_600_000, slots: 1 });
    },
  );

  test('of comments and one line that is none is read', async () => {
    expect(await complaint('# all is well\nnonsense\n')).toContain('c.toml');
  });

  test.each<[string, object]>([
    ['group = "prod/web"', { group: 'prod/web' }],
    ['slots = 4', { slots: 4 }],
    ['slots = "4"', { slots: 4 }],
    ['wait = "forever"', { wait: 'forever' }],
    ['wait = 0', { wait: 0 }],
    ['splay = "1m"', { splayMs: 60_000 }],
    ['hold = "none"', { hold: 'none' }],
    ['timeout = "1h"', { timeoutMs: 3_600_000 }],
    ['kill_after = "5s"', { killAfterMs: 5_000 }],
    ['ok_codes = "0,4"', { okCodes: [0, 4] }],
    ['ok_codes = [0, 4]', { okCodes: [0, 4] }],
    ['ok_codes = ["0", 4]', { okCodes: [0, 4] }],
    ['ok_codes = 4', { okCodes: [4] }],
    ['ok_codes = []', { okCodes: [] }],
    ['reboot_codes = [35]', { rebootCodes: [35] }],
    ['conflict_exit_code = 9', { conflictExitCode: 9 }],
    ['node = "web01"', { node: 'web01' }],
    ['session_ttl = "1m"', { sessionTtlMs: 60_000 }],
    ['prefix = "ops"', { prefix: 'ops' }],
    ['verbose = true', { verbose: true }],
    ['quiet = true', { quiet: true }],
    ['log_format = "json"', { logFormat: 'json' }],
    ['"slots" = 4', { slots: 4 }],
    ['\ufeffslots = 4\r\nwait = 0\r\n', { slots: 4, wait: 0 }],
  ])('%j says what the flag says', async (text, options) => {
    expect(await exec(text)).toMatchObject(options);
  });

  test('that is empty, or only comments, changes nothing', async () => {
    const bare = await exec('');
    expect(await exec('# slots = 3\n\n[groups]\n[groups."prod/web"]\n')).toEqual(bare);
  });

  test('has every option of every command, or the option is for one call', () => {
    const settings = [...keys].filter(([, { perCall }]) => !perCall).map(([name]) => name);
    expect(settings).toEqual(
      expect.arrayContaining(['group', 'slots', 'wait', 'hold', 'ok_codes', 'node', 'prefix', 'quiet']),
    );
    const perCall = [...keys].filter(([, key]) => key.perCall).map(([name]) => name);
    expect(perCall).toEqual(expect.arrayContaining(['config', 'json', 'dry_run', 'force', 'owner', 'slot']));
  });

  test('is not looked at for help, and not needed', async () => {
    const context = { env: {}, version: '1', readText: () => missing('EACCES') };
    expect((await askedBy(['exec', '--help'], context)).kind).toBe('help');
    expect((await askedBy(['--version'], context)).kind).toBe('help');
  });
});

describe('a flag comes before the environment, that before the file, that before the default', () => {
  const file = 'slots = 3\nquiet = true';

  test('each with the next', async () => {
    expect((await exec('')).slots).toBe(1);
    expect((await exec(file)).slots).toBe(3);
    expect((await exec(file, [], { RUNLOCK_SLOTS: '4' })).slots).toBe(4);
    expect((await exec(file, ['-n', '5'])).slots).toBe(5);
    expect((await exec(file, ['-n', '5'], { RUNLOCK_SLOTS: '4' })).slots).toBe(5);
    expect((await exec(file, ['-n', '1'])).slots).toBe(1);
  });

  test('an empty variable is none, and a variable can take back what the file sets', async () => {
    expect((await exec(file, [], { RUNLOCK_SLOTS: '' })).slots).toBe(3);
    expect((await exec(file)).quiet).toBe(true);
    expect((await exec(file, [], { RUNLOCK_QUIET: '0' })).quiet).toBe(false);
  });
});

describe("a group's section", () => {
  const file = `
slots = 2
wait = "5m"
[groups.prod]
slots = 3
hold = "4h"
[groups."prod/web"]
slots = 4
`;

  test.each<[string, object]>([
    ['prod/web', { slots: 4, hold: 14_400_000, wait: 300_000 }],
    ['prod/web/a/b', { slots: 4, hold: 14_400_000, wait: 300_000 }],
    ['prod/db', { slots: 3, hold: 14_400_000, wait: 300_000 }],
    ['prod', { slots: 3, hold: 14_400_000, wait: 300_000 }],
    ['prod-2', { slots: 2, hold: 'forever', wait: 300_000 }],
    ['web', { slots: 2, hold: 'forever', wait: 300_000 }],
  ])('counts for it and those below, the nearest first: %s', async (group, options) => {
    expect(await exec(file, ['-g', group])).toMatchObject(options);
  });

  test('is found by the group of the flag, else the environment, else the file, else the default', async () => {
    const four = `group = "c"\n${['a', 'b', 'c', 'default'].map((name, i) => `[groups.${name}]\nslots = ${i + 2}`).join('\n')}`;
    expect((await exec(four, ['-g', 'a'], { RUNLOCK_GROUP: 'b' })).slots).toBe(2);
    expect((await exec(four, [], { RUNLOCK_GROUP: 'b' })).slots).toBe(3);
    expect((await exec(four)).slots).toBe(4);
    expect((await exec(four.replace('group = "c"', ''))).slots).toBe(5);
  });

  test('comes after flag and environment', async () => {
    expect((await exec(file, ['-g', 'prod', '-n', '7'])).slots).toBe(7);
    expect((await exec(file, ['-g', 'prod'], { RUNLOCK_SLOTS: '6' })).slots).toBe(6);
  });

  test.each([
    'groups."prod/web".slots = 4',
    'groups = { "prod/web" = { slots = 4 } }',
    '[groups]\n"prod/web".slots = 4',
    '[groups]\n"prod/web" = { slots = 4 }',
    "[ groups . 'prod/web' ] # web\nslots = 4",
  ])('can be written as TOML allows: %j', async (text) => {
    expect((await exec(text, ['-g', 'prod/web'])).slots).toBe(4);
  });

  test('of several groups must agree, or the flag has to say it', async () => {
    const config = readConfig('c.toml', file, keys);
    const tree = await commandTree(commands, { env: {}, version: '1', readText: () => missing() });
    const [exec] = tree.commands.filter((command) => command.name() === 'exec');
    const slots = exec && find(exec, '--slots');
    const hold = exec && find(exec, '--hold');
    if (!slots || !hold) throw new Error('exec has other options');
    expect(settingFor(hold, ['prod', 'prod/web'], config)).toMatchObject({ text: '4h', line: 6 });
    expect(() => settingFor(slots, ['prod', 'prod/web'], config)).toThrow(
      'c.toml: slots is 3 (line 5) for prod and 4 (line 8) for prod/web; for several groups, use --slots',
    );
    expect(() => settingFor(hold, ['prod', 'web'], config)).toThrow(
      'hold is 4h (line 6) for prod and not set for web',
    );
  });

  test('of a run in several groups counts for its own slots and hold; a flag or a variable for all', async () => {
    const argv = ['-g', 'web', '-g', 'prod/web', '-g', 'prod'];
    const web = { group: 'web', slots: 2, hold: 'forever' };
    const prod = { group: 'prod', slots: 3, hold: 14_400_000 };
    expect((await exec(file, argv)).groups).toEqual([web, { ...prod, group: 'prod/web', slots: 4 }, prod]);
    const slots = async (more: string[], env?: Env) =>
      (await exec(file, [...argv, ...more], env)).groups.map((each) => each.slots);
    expect(await slots(['-n', '7'])).toEqual([7, 7, 7]);
    expect(await slots([], { RUNLOCK_SLOTS: '6' })).toEqual([6, 6, 6]);
    expect((await exec('group = "a,b"\n[groups.a]\nslots = 3')).groups).toMatchObject([
      { group: 'a', slots: 3 },
      { group: 'b', slots: 1 },
    ]);
    const timeouts = '[groups.a]\ntimeout = "1h"\n[groups.b]\ntimeout = "2h"';
    expect(await refusal(read(timeouts, ['exec', '-g', 'a', '-g', 'b', '--', 'x']))).toMatch(
      /timeout is 1h \(line 2\) for a and 2h \(line 4\) for b; for several groups, use --timeout$/,
    );
    const report = await askedOf('config', ['config', '-g', 'prod', '-g', 'web'], {
      env: { RUNLOCK_HOLD: '1h' },
      version: '1',
      readText: () => file,
    });
    const shown = report.options.report.options.filter(({ group }) => group !== undefined);
    expect(shown).toMatchObject([
      { option: 'slots', group: 'prod', value: '3', from: 'file', line: 5, section: 'prod' },
      { option: 'slots', group: 'web', value: '2', from: 'file', line: 2 },
      { option: 'hold', group: 'prod', value: '1h', from: 'environment' },
      { option: 'hold', group: 'web', value: '1h', from: 'environment' },
      { option: 'release_on_signal', group: 'prod', value: 'false', from: 'default' },
      { option: 'release_on_signal', group: 'web', value: 'false', from: 'default' },
    ]);
  });

  test('says whether a signal gives the slot back there; a flag or a variable for all', async () => {
    const file = '[groups.prod]\nrelease_on_signal = true\n[groups."prod/db"]\nrelease_on_signal = false';
    const argv = ['-g', 'web', '-g', 'prod/web', '-g', 'prod/db'];
    const released = async (more: string[] = [], env?: Env, text = file) =>
      (await exec(text, [...argv, ...more], env)).groups.map((each) => each.releaseOnSignal ?? false);
    expect(await released()).toEqual([false, true, false]);
    expect(await released(['--release-on-signal'])).toEqual([true, true, true]);
    expect(await released([], { RUNLOCK_RELEASE_ON_SIGNAL: 'false' })).toEqual([false, false, false]);
    expect(await released([], { RUNLOCK_RELEASE_ON_SIGNAL: '1' })).toEqual([true, true, true]);
    expect(await released([], {}, `release_on_signal = true\n${file}`)).toEqual([true, true, false]);
  });

  test('counts where the group is an argument', async () => {
    const text = '[groups.a]\nnode = "web01"\n[groups.default]\nnode = "web02"';
    expect(await read(text, ['release', 'a'])).toMatchObject({ options: { group: 'a', owner: 'web01' } });
    expect(await read(text, ['release'])).toMatchObject({ options: { group: 'default', owner: 'web02' } });
  });
});

describe('a file that is wrong is refused with line, name, and what is right', () => {
  test.each([
    [
      '\n\n[groups."prod/web"]\nslotz = 3',
      /^c\.toml:4: unknown key 'slotz' in \[groups\."prod\/web"\]; did you mean 'slots'\?$/,
    ],
    ['solts = 3', /^c\.toml:1: unknown key 'solts'; did you mean 'slots'\?$/],
    ['Wait = "1m"', /unknown key 'Wait'; did you mean 'wait'\?/],
    ['kill-after = "1s"', /^c\.toml:1: unknown key 'kill-after'; write it with underscores: 'kill_after'$/],
    ['forse = true', /unknown key 'forse'(?!.*force)/],
    ['nonsense = 1', /unknown key 'nonsense'; see 'runlock exec --help'$/],
    ['__proto__ = 1', /^c\.toml:1: unknown key '__proto__'/],
    ['constructor = 1', /^c\.toml:1: unknown key 'constructor'/],
    ['slots = 0', /^c\.toml:1: slots = 0: not a whole number from 1 to 100000$/],
    ['[groups."a/b"]\nwait = "soon"', /^c\.toml:2: wait = "soon" in \[groups\."a\/b"\]: not a duration; /],
    ['wait = 30', /wait = 30: not a duration; write it like 90s/],
    ['wait = ""', /wait = "": not a duration/],
    ['slots = true', /slots = true: write a text in quotes or a whole number, as for --slots <n>$/],
    ['slots = [1]', /slots = \[1\]: write a text in quotes or a whole number, as for --slots <n>$/],
    ['node = 1.50', /node = 1\.5: write a text in quotes/],
    ['wait = inf', /wait = Infinity: write a text in quotes/],
    ['wait = 2024-01-01', /wait = 2024-01-01: write a text in quotes/],
    ['verbose = "yes"', /verbose = "yes": write true or false, without quotes$/],
    ['ok_codes = [0, 300]', /ok_codes = \[0,300\]: not a list of exit codes/],
    ['ok_codes = [[0]]', /ok_codes = \[\[0\]\]: .*or a list of these, as for --ok-codes <list>/],
    ['force = true', /^c\.toml:1: 'force' is not allowed in a file; use the flag --force$/],
    ['json = true', /'json' is not allowed in a file/],
    ['config = "x"', /'config' is not allowed in a file/],
    ['[groups.a]\nowner = "web01"', /^c\.toml:2: 'owner' is not allowed in a file/],
    [
      '[groups.a]\ngroup = "b"',
      /^c\.toml:2: 'group' can't depend on the group; write it at the top, not in \[groups\."a"\]$/,
    ],
    ['[groups.a]\nprefix = "b"', /'prefix' can't depend on the group/],
    [
      '[exec]\nslots = 1',
      /^c\.toml:1: unknown section \[exec\]; options go at the top, or in a group's section/,
    ],
    ['exec.slots = 1', /^c\.toml:1: unknown section \[exec\]/],
    ['[group."a/b"]', /^c\.toml:1: unknown section \[group\]; did you mean 'groups'\?$/],
    [
      '[groups.prod.web]\nslots = 1',
      /^c\.toml:1: \[groups\.prod\.web\] is not a section; did you mean \[groups\."prod\/web"\]\?$/,
    ],
    ['[[groups.a]]\nslots = 1', /^c\.toml:1: write \[groups\.a\], with one bracket on each side$/],
    ['groups = 3', /'groups' is not an option; write sections/],
    [
      '[groups]\nslots = 3',
      /^c\.toml:2: 'slots' is not allowed in \[groups\]; write it in a group's section/,
    ],
    ['[groups."a b"]', /^c\.toml:1: \[groups\."a b"\]: not a group/],
    ['wait = {}', /^c\.toml:1: unknown section \[wait\]/],
  ])('%j', async (text, pattern) => {
    expect(await complaint(text)).toMatch(pattern);
  });

  test.each([
    ['slots = 3\nwait = 30m', /^c\.toml:2:10: not TOML: .*; a text needs quotes: wait = "30m"$/],
    ['hold = forever', /^c\.toml:1:8: not TOML: .*; a text needs quotes: hold = "forever"$/],
    [
      '[groups.prod/web]',
      /^c\.toml:1:13: not TOML: .*; a group's name needs quotes: \[groups\."prod\/web"\]$/,
    ],
    ['slots = 1\nslots = 2', /^c\.toml:2:1: not TOML: trying to redefine an already defined table or value$/],
    ['slots 3', /^c\.toml:1:\d+: not TOML: [^\n]+$/],
    ['ok_codes = [0,', /^c\.toml:1:\d+: not TOML: unfinished array$/],
    ['wait = """', /^c\.toml:1:8: unclosed quote: write """ on both sides of the text$/],
  ])('%j is not TOML: line and column, and what is missing', async (text, pattern) => {
    expect(await complaint(text)).toMatch(pattern);
  });

  test.each(['token = "s3cret"', 'consul_http_token = "s3cret"', '[groups.a]\nconsul-token = "s3cret"'])(
    'no token stands in it, and none is printed: %j',
    async (text) => {
      const message = await complaint(text);
      expect(message).toMatch(/is not allowed in a file; use Consul's own CONSUL_\* variables/);
      expect(message).not.toContain('s3cret');
    },
  );

  test('in a section that is not used, and where a flag comes first', async () => {
    const argv = ['exec', '-g', 'a', '-n', '2', '--', 'true'];
    expect(await refusal(read('[groups.b]\nslots = "x"', argv))).toMatch(/:2: slots = "x"/);
    expect(await refusal(read('slots = "x"', argv))).toMatch(/:1: slots = "x"/);
    expect(await refusal(read('slots = "x"', ['status']))).toMatch(/:1: slots = "x"/);
  });

  test('what one command takes and another does not is refused by that one alone', async () => {
    expect((await exec('hold = "none"')).hold).toBe('none');
    expect(await refusal(read('hold = "none"', ['acquire']))).toMatch(
      /^\/etc\/runlock\/config\.toml:1: hold = none: /,
    );
  });
});

describe('a file that cannot be read', () => {
  const from = (code: string, argv: readonly string[] = [], env: Env = {}) =>
    askedBy(['exec', ...argv, '--', 'true'], { env, version: '1', readText: () => missing(code) });

  test('may be missing where nobody named it', async () => {
    expect(await from('ENOENT')).toMatchObject({ kind: 'exec', options: { groups: [{ slots: 1 }] } });
    expect(await from('ENOTDIR')).toMatchObject({ kind: 'exec' });
  });

  test('is an error else', async () => {
    expect(await refusal(from('ENOENT', ['--config', 'x']))).toMatch(/^--config x: no such file; /);
    expect(await refusal(from('ENOENT', [], { RUNLOCK_CONFIG: 'y' }))).toMatch(
      /^RUNLOCK_CONFIG=y: no such file; /,
    );
    expect(await refusal(from('EACCES'))).toMatch(
      /^\/etc\/runlock\/config\.toml: permission denied; make it readable/,
    );
    expect(await refusal(from('EISDIR', ['--config', '/']))).toMatch(/^--config \/: it is a folder; /);
  });

  test('does not keep a shell from completing', async () => {
    const context = { env: {}, version: '1', readText: () => 'nonsense' };
    expect((await askedBy(['completion', 'bash'], context)).kind).toBe('completion');
    expect((await askedBy(['__complete', 'exec'], context)).kind).toBe('__complete');
  });

  test.each<[string[], Env, string]>([
    [[], {}, '/etc/runlock/config.toml'],
    [[], { RUNLOCK_CONFIG: '' }, '/etc/runlock/config.toml'],
    [[], { RUNLOCK_CONFIG: 'b' }, 'b'],
    [['--config', 'a'], { RUNLOCK_CONFIG: 'b' }, 'a'],
  ])(
    'is the one of the flag, else of the environment, else the usual one: %j %j',
    async (argv, env, path) => {
      const asked: string[] = [];
      const readText = (name: string) => {
        asked.push(name);
        return '';
      };
      await askedBy(['exec', ...argv, '--', 'true', '--config', 'not mine'], { env, version: '1', readText });
      expect(asked).toEqual([path]);
    },
  );
});

describe('a file that other users can write', () => {
  const untrusted = (argv: readonly string[], { uid = 1, text = 'slots = 2' } = {}) =>
    askedBy(argv, {
      ...{ env: {}, version: '1', readText: () => text, uid },
      checkFile: (path) => Promise.reject(new RunlockError('config', `${path}: not trusted`)),
    });

  test('is refused by what runs tasks, whoever starts it', async () => {
    for (const action of [['task', 'list'], ['task', 'show', 'a'], ['task', 'run', 'a'], ['agent']]) {
      expect(await refusal(untrusted(action))).toBe('/etc/runlock/config.toml: not trusted');
      expect(await refusal(untrusted([...action, '--config', 'x']))).toBe('x: not trusted');
    }
  });

  test('is refused where root reads it and nobody names it; who names one says what to read', async () => {
    const exec = ['exec', '--', 'true'];
    expect(await refusal(untrusted(exec, { uid: 0 }))).toBe('/etc/runlock/config.toml: not trusted');
    expect((await untrusted(['status', '--config', 'x'], { uid: 0 })).kind).toBe('status');
    expect((await untrusted(exec)).kind).toBe('exec');
  });

  test('does no harm while it says nothing, as the one of the package', async () => {
    expect((await untrusted(['task', 'list'], { text: '# slots = 2\n' })).kind).toBe('task');
  });
});

describe('the line of a statement', () => {
  const lines = (text: string) =>
    readStatements('x', text).map(({ line, path }) => `${line} ${path.join('>')}`);

  test('is found in spite of comments, texts and lists of several lines', () => {
    const text = [
      '# slots = 1',
      'slots = 1 # [groups.x]',
      '',
      'wait = """',
      'hold = 1',
      '[groups.y]',
      '"""',
      'ok_codes = [ # codes',
      '  0,',
      '  # 1',
      '  2 ]',
      "[groups.'a/b'] # x",
      'hold = "x = \\"[y]\\""',
      'a."b.c" = 1',
      '[ groups."c" ]',
      'd = { e = 1, f.g = 2 }',
    ].join('\n');
    expect(lines(text)).toEqual([
      ...['2 slots', '4 wait', '8 ok_codes', '12 groups>a/b', '13 groups>a/b>hold', '14 groups>a/b>a>b.c'],
      ...['15 groups>c', '16 groups>c>d>e', '16 groups>c>d>f>g'],
    ]);
    expect(lines(text.replaceAll('\n', '\r\n'))).toEqual(lines(text));
  });
});

describe('the nearest word', () => {
  const words = ['slots', 'wait', 'hold', 'kill_after', 'ok_codes'];

  test.each([
    ['slotz', 'slots'],
    ['slot', 'slots'],
    ['hodl', 'hold'],
    ['wiat', 'wait'],
    ['killafter', 'kill_after'],
    ['okcodes', 'ok_codes'],
  ])('to %s is %s', (word, right) => {
    expect(nearest(word, words)).toBe(right);
  });

  test('is the one with two letters swapped, before one with two others', () => {
    expect(nearest('hodl', ['node', 'hold'])).toBe('hold');
  });

  test.each(['', 'x', 'timeout', 'prefix', 'constructor'])('to %j is none', (word) => {
    expect(nearest(word, words)).toBeUndefined();
  });
});

test('one command that takes a value is enough, and else the first one says why not', () => {
  const only = (right: string) => (text: string) => {
    if (text !== right) throw new RunlockError('usage', `not ${right}`);
  };
  const key = { flags: '--x <n>', takes: 'value', perCall: false, checks: [only('1'), only('2')] } as const;
  const of = (text: string) => readConfig('c.toml', text, new Map([['x', key]]));
  expect(of('x = 1').general.get('x')).toEqual({ text: '1', line: 1 });
  expect(of('x = 2').general.get('x')).toEqual({ text: '2', line: 1 });
  expect(() => of('x = 3')).toThrow('c.toml:1: x = 3: not 1');
});

test('what a file says is checked with the very parsers of the flags', () => {
  expect(() => readConfig('x', 'session_ttl = "5s"', keys)).toThrow(/whole seconds from 10s to 24h/);
});
