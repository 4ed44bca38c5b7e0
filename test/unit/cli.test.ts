import { describe, expect, test } from 'vitest';
import { commandTree, parse } from '../../src/cli/parse.ts';
import { commands } from '../../src/commands/registry.ts';
import { variableOf } from '../../src/cli/option.ts';
import { RunlockError } from '../../src/errors.ts';
import { LONG_OPTIONS, withoutOptions } from '../../src/cli/values.ts';
import { askedBy, askedOf, printedBy } from '../support/command-line.ts';
import type { Kinds } from '../support/command-line.ts';

type Env = Record<string, string>;

/** No file is where it is looked for. */
const readText = () => {
  throw Object.assign(new Error('ENOENT: no such file'), { code: 'ENOENT' });
};
const context = { env: {}, version: '1.2.3', readText };
const read = (argv: string[], env: Env = {}) => askedBy(argv, { env, version: '1.2.3', readText });

const as = <Kind extends keyof Kinds>(kind: Kind, argv: string[], env: Env = {}) =>
  askedOf(kind, argv, { env, version: '1.2.3', readText });

const exec = (argv: string[], env?: Env) => as('exec', ['exec', ...argv], env);
/** With what is asked of the first group. */
const execOptions = async (argv: string[], env?: Env) => {
  const { options } = await exec([...argv, '--', 'true'], env);
  return { ...options, ...options.groups[0] };
};

/** The message of the usage error, which is one line. */
async function complaint(argv: string[], env?: Env): Promise<string> {
  try {
    await read(argv, env);
  } catch (error) {
    expect(error).toBeInstanceOf(RunlockError);
    expect(error).toMatchObject({ code: 'usage' });
    const { message } = error as Error;
    expect(message).not.toBe('');
    expect(message).not.toContain('\n');
    return message;
  }
  throw new Error(`${argv.join(' ')} was accepted`);
}

const common = { verbose: false, quiet: false, logFormat: 'text' };

describe('exec', () => {
  test('needs nothing but a command', async () => {
    expect(await exec(['--', 'chef-client'])).toEqual({
      kind: 'exec',
      common,
      conflictExitCode: 75,
      options: {
        ...{ prefix: 'runlock', groups: [{ group: 'default', slots: 1, hold: 'forever' }] },
        ...{ wait: 3_600_000, splayMs: 0 },
        ...{ killAfterMs: 10_000, sessionTtlMs: 30_000, dryRun: false, command: 'chef-client', args: [] },
      },
    });
  });

  test('takes every option', async () => {
    const names = ['-g', 'prod/web', '-n', '3', '--node', 'web01', '--prefix', 'ops/locks', '--dry-run'];
    const times = [
      '-w',
      'forever',
      '--splay',
      '5m',
      '--hold',
      '4h',
      '--timeout',
      '1h',
      '--kill-after',
      '30s',
    ];
    const codes = ['--ok-codes', '0,3', '--reboot-codes', '35', '-E', '0', '--session-ttl', '1m'];
    const said = ['-v', '--quiet', '--log-format', 'json'];
    expect(await exec([...names, ...times, ...codes, ...said, '--', 'x', '-y'])).toEqual({
      kind: 'exec',
      common: { verbose: true, quiet: true, logFormat: 'json' },
      conflictExitCode: 0,
      options: {
        ...{ prefix: 'ops/locks', node: 'web01', dryRun: true },
        groups: [{ group: 'prod/web', slots: 3, hold: 14_400_000 }],
        ...{ wait: 'forever', splayMs: 300_000, timeoutMs: 3_600_000 },
        ...{ killAfterMs: 30_000, okCodes: [0, 3], rebootCodes: [35], sessionTtlMs: 60_000 },
        ...{ command: 'x', args: ['-y'] },
      },
    });
  });

  test('takes long names, and values after an equals sign', async () => {
    const argv = ['--group=a', '--slots=2', '--wait=0', '--conflict-exit-code=9', '--', 'x'];
    expect(await exec(argv)).toMatchObject({
      conflictExitCode: 9,
      options: { groups: [{ group: 'a', slots: 2 }], wait: 0 },
    });
  });

  test('takes several groups, each once: by flags, or with commas as its command finds them', async () => {
    const groups = async (argv: string[], env?: Env) =>
      (await execOptions(argv, env)).groups.map(({ group }) => group);
    expect(await groups(['-g', 'rack/r4', '-g', 'prod/web', '--group', 'rack/r4'])).toEqual([
      'rack/r4',
      'prod/web',
    ]);
    expect(await groups(['-g', 'default', '-g', 'a'])).toEqual(['default', 'a']);
    expect(await groups([], { RUNLOCK_GROUP: 'rack/r4,prod/web' })).toEqual(['rack/r4', 'prod/web']);
    expect(await groups(['-g', 'a'], { RUNLOCK_GROUP: 'b,c' })).toEqual(['a']);
    const many = Array.from({ length: 21 }, (_, i) => ['-g', `g${i}`]).flat();
    expect(await complaint(['exec', ...many, '--', 'x'])).toBe(
      'too many groups (21); at most 20 are allowed',
    );
  });

  test('an empty list of codes is a list, not the default', async () => {
    expect(await execOptions(['--ok-codes', ''])).toMatchObject({ okCodes: [] });
  });
});

describe('the command reaches exec untouched', () => {
  test.each([
    ['with its options', ['--', 'x', '-g', 'b', '--node', 'c', '-n'], ['-g', 'b', '--node', 'c', '-n']],
    ['with a second --', ['--', 'x', 'a', '--', 'b'], ['a', '--', 'b']],
    ['with -- as its first argument', ['--', 'x', '--', '-b'], ['--', '-b']],
    ['with --help and --version', ['--', 'x', '--help', '-V', '-h'], ['--help', '-V', '-h']],
    [
      'with empty and odd arguments',
      ['--', 'x', '', ' ', 'a b', '$(y)', '\n'],
      ['', ' ', 'a b', '$(y)', '\n'],
    ],
    ['without --', ['x', '-g', 'b', '--unknown', '--help'], ['-g', 'b', '--unknown', '--help']],
    ['without --, and with one of its own', ['x', 'a', '--', 'b'], ['a', '--', 'b']],
    ['named like a command of runlock', ['--', 'x', 'status'], ['status']],
  ])('%s', async (_, argv, args) => {
    expect((await exec(['-n', '2', ...argv])).options).toMatchObject({
      command: 'x',
      args,
      groups: [{ group: 'default', slots: 2 }],
    });
  });

  test.each(['status', 'exec', 'help', '-x'])('when it is called %s', async (command) => {
    expect((await exec(['--', command, 'a'])).options).toMatchObject({ command, args: ['a'] });
  });
});

describe('status and release', () => {
  test('status shows all groups, as text', async () => {
    const options = { prefix: 'runlock', groups: [], json: false };
    expect(await as('status', ['status'])).toEqual({ kind: 'status', common, options });
    expect((await as('status', ['status', 'a', '--json', 'b/c', '--prefix', 'p'])).options).toEqual({
      ...{ prefix: 'p', groups: ['a', 'b/c'], json: true },
    });
  });

  test('release clears the own claim of the default group', async () => {
    expect((await as('release', ['release'])).options).toEqual({
      ...{ prefix: 'runlock', json: false, force: false, group: 'default' },
    });
  });

  test("release clears what an operator names, of another's", async () => {
    const argv = ['release', 'prod/web', '--owner', 'web02', '--slot', '0', '--force', '--json'];
    expect((await as('release', argv)).options).toEqual({
      ...{ prefix: 'runlock', json: true, force: true, group: 'prod/web', owner: 'web02', slot: 0 },
    });
    expect((await as('release', ['release', '-g', 'a', '--node', 'web03'])).options).toMatchObject({
      ...{ group: 'a', owner: 'web03' },
    });
  });
});

describe('the environment', () => {
  test.each<[string, string, object]>([
    ['RUNLOCK_GROUP', 'prod/web', { group: 'prod/web' }],
    ['RUNLOCK_SLOTS', '4', { slots: 4 }],
    ['RUNLOCK_WAIT', 'forever', { wait: 'forever' }],
    ['RUNLOCK_SPLAY', '1m', { splayMs: 60_000 }],
    ['RUNLOCK_HOLD', 'none', { hold: 'none' }],
    ['RUNLOCK_TIMEOUT', '1h', { timeoutMs: 3_600_000 }],
    ['RUNLOCK_KILL_AFTER', '5s', { killAfterMs: 5_000 }],
    ['RUNLOCK_OK_CODES', '0,4', { okCodes: [0, 4] }],
    ['RUNLOCK_REBOOT_CODES', '35', { rebootCodes: [35] }],
    ['RUNLOCK_NODE', 'web01', { node: 'web01' }],
    ['RUNLOCK_SESSION_TTL', '1m', { sessionTtlMs: 60_000 }],
    ['RUNLOCK_DRY_RUN', 'true', { dryRun: true }],
    ['RUNLOCK_PREFIX', 'ops', { prefix: 'ops' }],
  ])('%s=%s fills in for a flag', async (name, text, options) => {
    expect(await execOptions([], { [name]: text })).toMatchObject(options);
    expect(await execOptions([], { [name]: '' })).toEqual(await execOptions([]));
  });

  test('fills in for what no command has of its own', async () => {
    const env = { RUNLOCK_VERBOSE: '1', RUNLOCK_QUIET: 't', RUNLOCK_LOG_FORMAT: 'json', RUNLOCK_JSON: '1' };
    expect((await exec(['-E', '3', '--', 'x'], env)).common).toEqual({
      verbose: true,
      quiet: true,
      logFormat: 'json',
    });
    expect((await as('status', ['status'], env)).options.json).toBe(true);
    expect((await exec(['--', 'x'], { RUNLOCK_CONFLICT_EXIT_CODE: '3' })).conflictExitCode).toBe(3);
    expect((await as('release', ['release'], { RUNLOCK_GROUP: 'a' })).options.group).toBe('a');
  });

  test('comes after a flag, even one that says the default', async () => {
    const env = { RUNLOCK_GROUP: 'a', RUNLOCK_SLOTS: '9', RUNLOCK_WAIT: 'not even read' };
    expect(await execOptions(['-g', 'default', '--slots', '1', '--wait', '1h'], env)).toEqual(
      await execOptions([]),
    );
  });

  test('can take a flag back that it would set', async () => {
    expect((await execOptions([], { RUNLOCK_DRY_RUN: '0' })).dryRun).toBe(false);
  });

  test.each([
    ['RUNLOCK_SLOTS', 'many', /^RUNLOCK_SLOTS=many: not a whole number from 1 to 100000$/],
    ['RUNLOCK_GROUP', '/x', /^RUNLOCK_GROUP=\/x: not a group; /],
    ['RUNLOCK_DRY_RUN', 'yes', /^RUNLOCK_DRY_RUN=yes: write true or false$/],
    ['RUNLOCK_HOLD', 'long', /^RUNLOCK_HOLD=long: /],
    ['RUNLOCK_LOG_FORMAT', 'xml', /^RUNLOCK_LOG_FORMAT=xml: unknown log format; use text or json$/],
  ])('%s=%s is refused by its name', async (name, text, pattern) => {
    expect(await complaint(['exec', '--', 'x'], { [name]: text })).toMatch(pattern);
  });

  test('of every option of every command is kept from what exec runs, and nothing else is', async () => {
    const tree = await commandTree(commands, { env: {}, version: '1.2.3', readText });
    const options = new Set(tree.commands.flatMap((command) => command.options).map(variableOf));
    const own = {
      RUNLOCK_RUN_ID: 'x',
      RUNLOCK_RUN_GROUP: 'x',
      RUNLOCK: 'x',
      RUNLOCK_: 'x',
      PATH: 'x',
      GROUP: 'x',
    };
    const env = { ...Object.fromEntries([...options].map((name) => [name, 'x'])), ...own };
    expect(options.size).toBeGreaterThan(30);
    expect(withoutOptions(env)).toEqual(own);
    const known = LONG_OPTIONS.map((name) => `RUNLOCK_${name.replaceAll('-', '_').toUpperCase()}`);
    expect([...known].sort()).toEqual([...options].sort());
  });

  test('of Consul and of others is not looked at', async () => {
    expect(await execOptions([], { GROUP: 'x', CONSUL_HTTP_ADDR: 'x', RUNLOCK_RUN_ID: 'x' })).toEqual(
      await execOptions([]),
    );
  });
});

test('a value may begin with two dashes after =, and the words of a command are left alone', async () => {
  expect(await read(['freeze', 'prod', '--reason=--dry-run'])).toMatchObject({
    options: { reason: '--dry-run' },
  });
  expect(await exec(['--', 'x', '--group', '--reason'])).toMatchObject({ options: { command: 'x' } });
  expect(await exec(['x', '--group', '--quiet'])).toMatchObject({
    options: { command: 'x', args: ['--group', '--quiet'] },
  });
});

describe('wrong usage says what is wrong, and where to look', () => {
  test.each<[string[], RegExp]>([
    [[], /^no command; see 'runlock --help'$/],
    [['exce'], /unknown command 'exce'.*'runlock --help'$/],
    [['--nonsense', 'exec'], /unknown option '--nonsense'.*'runlock --help'$/],
    [
      ['-g', 'x', 'exec', '--', 'y'],
      /^-g must come after the command: runlock exec -g …; see 'runlock exec --help'$/,
    ],
    [['-gx', 'exec', '--', '-y'], /^-g must come after the command: runlock exec -g …;/],
    [
      ['--group=x', '-v', '--wait', '0', 'exec'],
      /^--group must come after the command: runlock exec --group …;/,
    ],
    [['-g', 'status', 'acquire'], /^-g must come after the command: runlock acquire -g …;/],
    [
      ['--maintenance', 'exec', '--', 'y'],
      /^--maintenance must come after the command: runlock exec --maintenance …;/,
    ],
    [['-v', 'status'], /^-v must come after the command: runlock status -v …; see 'runlock status --help'$/],
    [
      ['--json', '--owner', 'exec', 'release'],
      /^--json must come after the command: runlock release --json …;/,
    ],
    [['-g', 'x', '--', 'chef-client'], /^-g must come after a command, as in 'runlock exec -g /],
    [['-g', 'x', 'chef-client'], /^-g must come after a command/],
    [['-g'], /^-g must come after a command/],
    [['--watch', 'exec', '--', 'y'], /^unknown option '--watch'; see 'runlock --help'$/],
    [['--wathc', 'status'], /^unknown option '--wathc'/],
    [['-g', 'x', '--nonsense', 'exec'], /^unknown option '-g'/],
    [['exec'], /^missing <command>; see 'runlock exec --help'$/],
    [['exec', '--'], /^missing <command>; see/],
    [['exec', '--nonsense', '--', 'x'], /unknown option '--nonsense'.*'runlock exec --help'$/],
    [
      ['job', 'start', 'web', '--principal', 'ops', '--reason', '--dry-run'],
      /^no value for --reason: --dry-run begins with '--'; if that is meant as the value, write --reason=--dry-run$/,
    ],
    [['freeze', 'prod', '--reason', '--for', '1h'], /^no value for --reason: --for begins with '--'/],
    [['agent', 'pause', '--reason', '--json'], /^no value for --reason: --json begins/],
    [['state', 'set', 'a/b', 'x', '--if-value', '--force'], /^no value for --if-value: --force begins/],
    [['exec', '-g', '--dry-run', '--', 'x'], /^no value for -g: .* write --group=--dry-run$/],
    [['agent', '--log-dir', '--verbose'], /^no value for --log-dir: --verbose begins/],
    [['exec', '-g'], /^no value for --group <path>; see 'runlock exec --help'$/],
    [['exec', '-n', '0', '--', 'x'], /^--slots 0: not a whole number from 1 to 100000$/],
    [
      ['exec', '-w', '5', '--', 'x'],
      /^--wait 5: not a duration; write it like 90s, 10m, 1h30m or 2d, or forever$/,
    ],
    [['exec', '--timeout', '0', '--', 'x'], /^--timeout 0: must be greater than 0$/],
    [['exec', '--session-ttl', '5s', '--', 'x'], /10s to 24h/],
    [['exec', '-E', '256', '--', 'x'], /from 0 to 255/],
    [['exec', '--ok-codes', 'all', '--', 'x'], /list of exit codes/],
    [['exec', '--token', 'secret', '--', 'x'], /unknown option '--token'/],
    [['exec', '-g', 'a\nb', '--', 'x'], /^--group 'a\\x0ab': not a group; /],
    [['status', '..'], /^group \.\.: not a group; /],
    [['status', '--watchful'], /unknown option '--watchful'/],
    [['release', '.slot'], /^group \.slot: not a group; /],
    [['release', 'a', 'b'], /^too many arguments: release takes 1, not 2; see 'runlock release --help'$/],
    [['release', '--slot', '-1'], /^--slot -1: not a whole number/],
    [['release', '-g', 'a', '-g', 'b'], /^release takes one group, not 2 \(a, b\); run it once for each/],
    [['acquire', '-g', 'a', '-g', 'b'], /^acquire takes one group, not 2 \(a, b\); run it once for each/],
  ])('%j', async (argv, pattern) => {
    expect(await complaint(argv)).toMatch(pattern);
  });
});

describe('help and version', () => {
  test.each([
    ['--help'],
    ['-h'],
    ['help'],
    ['exec', '--help'],
    ['help', 'exec'],
    ['status', '-h'],
    ['-g', '--help'],
  ])('%s goes to stdout', async (...argv) => {
    expect(await printedBy(argv, context)).toMatch(/^Usage: runlock/);
  });

  test('--version names the version', async () => {
    expect(await printedBy(['--version'], context)).toBe('runlock 1.2.3\n');
    expect(await printedBy(['-V'], context)).toBe('runlock 1.2.3\n');
  });
});

test('what was read cannot be changed any more', async () => {
  for (const argv of [['exec', '--', 'x'], ['status'], ['release']]) {
    const invocation = await parse(argv, commands, context);
    expect(Object.isFrozen(invocation)).toBe(true);
    expect(Object.isFrozen(invocation.asked)).toBe(true);
    expect(Object.isFrozen(invocation.asked?.options)).toBe(true);
  }
});
