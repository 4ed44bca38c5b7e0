// Values of options, as flags, variables and the file give them.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const agent = useAgent();

const HOUR_MS = 3_600_000;

/** How long a freeze lasts that is set so, in hours. */
async function frozenHours(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<number> {
  const words = ['freeze', 'days', '--reason', 'x', '--json', ...args];
  const { status, stdout, stderr } = await runlock(agent, words, { env });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const { freeze } = JSON.parse(stdout) as { freeze: { since: string; until: string } };
  return Math.round((Date.parse(freeze.until) - Date.parse(freeze.since)) / HOUR_MS);
}

describe('days and weeks', () => {
  test('count in a flag and in a variable', async () => {
    expect(await frozenHours(['--for', '2d'])).toBe(48);
    expect(await frozenHours(['--for', '5d3h'])).toBe(123);
    expect(await frozenHours([], { RUNLOCK_FOR: '1w' })).toBe(168);
  });

  test('count in the file', async () => {
    const file = join(stage().folder, 'config.toml');
    writeFileSync(file, 'hold = "1w1d"\n');
    const acquire = ['acquire', 'days-held', '--config', file, '--json'];
    const { stdout } = await runlock(agent, acquire);
    const { heldUntil } = JSON.parse(stdout) as { heldUntil: string };
    expect(Math.round((Date.parse(heldUntil) - Date.now()) / HOUR_MS)).toBe(192);
  });

  test('are shown as days', async () => {
    await runlock(agent, ['freeze', 'days-shown', '--reason', 'x', '--for', '1w']);
    const { stdout } = await runlock(agent, ['status', 'days-shown']);
    expect(stdout).toMatch(/in (?:7d|6d23h)/);
  });
});

describe('a value that is wrong is said once, with its place, on one line', () => {
  const LONG = 'x'.repeat(5_000);
  test.each<[string[], Record<string, string>, string]>([
    [
      ['exec', '-w', '5x', '--', 'true'],
      {},
      '--wait 5x: not a duration; write it like 90s, 10m, 1h30m or 2d, or forever',
    ],
    [['exec', '--', 'true'], { RUNLOCK_SPLAY: '1e9w' }, 'RUNLOCK_SPLAY=1e9w: not a duration; '],
    [
      ['exec', '--splay', '99999999999999999999w', '--', 'true'],
      {},
      '--splay 99999999999999999999w: longer than a year; ',
    ],
    [['exec', '--splay', '', '--', 'true'], {}, "--splay '': not a duration; "],
    [['exec', '-n', '-1', '--', 'true'], {}, '--slots -1: not a whole number from 1 to 100000'],
    [['exec', '-n', LONG, '--', 'true'], {}, `--slots '${'x'.repeat(60)}…': not a whole number`],
    [['exec', '-g', 'pröd', '--', 'true'], {}, "--group 'pröd': not a group; "],
    [['exec', '-g', 'a\x1b[2Jb', '--', 'true'], {}, "--group 'a\\x1b[2Jb': not a group; "],
    [['history', 'a\nb'], {}, "group 'a\\x0ab': not a group; "],
    [['exec', '-g', '--', 'true'], {}, '--group --: not a group; '],
    [['exec', '--splay'], {}, "no value for --splay <duration>; see 'runlock exec --help'"],
    [['exec'], {}, "missing <command>; see 'runlock exec --help'"],
    [['gate', 'look'], {}, "unknown action 'look'; use check, enter, leave; see 'runlock gate --help'"],
    [['statsu'], {}, "unknown command 'statsu'; did you mean status?; see 'runlock --help'"],
    [['history', 'a', 'b'], {}, "too many arguments: history takes 1, not 2; see 'runlock history --help'"],
  ])('%j %j', async (args, env, message) => {
    const { status, stdout, stderr } = await runlock(agent, args, { env });
    expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
    expect(stderr).toMatch(/^runlock: [^\n]{1,400}\n$/);
    expect(stderr.slice('runlock: '.length)).toContain(message);
    expect(stderr.indexOf(message)).toBe('runlock: '.length);
  });
});

describe('the group of a command that takes it as an argument', () => {
  const stored = (group: string) => agent.kv.get(`runlock/${group}/.freeze`);

  test('can be given by -g, as for exec: history, freeze, thaw', async () => {
    await runlock(agent, ['exec', '-g', 'by-flag', '--node', 'web01', '--', 'true']);
    expect((await runlock(agent, ['history', '-g', 'by-flag'])).stdout).toContain('web01');
    expect((await runlock(agent, ['history', '--group', 'by-flag-not'])).stdout).not.toContain('web01');
    const freeze = await runlock(agent, ['freeze', '-g', 'by-flag', '--reason', 'x']);
    expect(freeze).toMatchObject({ status: 0, stderr: '' });
    expect(await stored('by-flag')).toBeDefined();
    expect(await runlock(agent, ['thaw', '-g', 'by-flag'])).toMatchObject({ status: 0, stderr: '' });
    expect(await stored('by-flag')).toBeUndefined();
  });

  test('is not the one that RUNLOCK_GROUP or the file names for runs: freeze and thaw ask for it', async () => {
    const file = join(stage().folder, 'config.toml');
    writeFileSync(file, 'group = "of-runs"\n');
    const env = { RUNLOCK_GROUP: 'of-runs', RUNLOCK_CONFIG: file };
    for (const args of [['freeze', '--reason', 'x'], ['thaw']]) {
      const { status, stderr } = await runlock(agent, args, { env });
      expect({ status, stderr }).toEqual({
        status: 64,
        stderr: `runlock: missing <group>; see 'runlock ${args[0] ?? ''} --help'\n`,
      });
    }
    await runlock(agent, ['exec', '-g', 'of-others', '--node', 'web02', '--', 'true']);
    expect((await runlock(agent, ['history'], { env })).stdout).toContain('of-others');
  });

  test.each([['history'], ['freeze', '--reason', 'x'], ['thaw'], ['acquire'], ['release']])(
    'is given once: %s',
    async (name, ...more) => {
      const both = await runlock(agent, [name, 'one', '-g', 'two', ...more]);
      expect(both).toEqual({
        status: 64,
        stdout: '',
        stderr: `runlock: ${name} takes one group, and was given one and --group two; leave one out\n`,
      });
      const twice = await runlock(agent, [name, '-g', 'one', '-g', 'two', ...more]);
      expect(twice).toEqual({
        status: 64,
        stdout: '',
        stderr: `runlock: ${name} takes one group, not 2 (one, two); run it once for each\n`,
      });
    },
  );
});

describe('a RUNLOCK_ variable that nothing reads', () => {
  const warning = 'runlock: unknown variable RUNLOCK_WIAT is ignored; did you mean RUNLOCK_WAIT?\n';

  test('is warned of with the right name, by every command that people and cron run', async () => {
    const env = { RUNLOCK_WIAT: '5m' };
    for (const args of [
      ['exec', '-g', 'stray', '--', 'true'],
      ['status'],
      ['history'],
      ['freeze', 'stray', '--reason', 'x'],
      ['thaw', 'stray'],
      ['acquire', 'stray'],
      ['release', 'stray'],
      ['config'],
    ])
      expect(await runlock(agent, args, { env })).toMatchObject({ status: 0, stderr: warning });
  });

  test('is a line with its fields in JSON', async () => {
    const { stderr } = await runlock(agent, ['status', '--log-format', 'json'], {
      env: { RUNLOCK_WIAT: '5m' },
    });
    expect(JSON.parse(stderr)).toMatchObject({
      event: 'unknown-variable',
      level: 'warning',
      name: 'RUNLOCK_WIAT',
      meant: 'RUNLOCK_WAIT',
    });
  });

  test('is nothing to a check, to a shell that completes, to -q, or where it is empty', async () => {
    const env = { RUNLOCK_WIAT: '5m' };
    for (const args of [
      ['status', '--check'],
      ['__complete', 'runlock', ''],
      ['completion', 'bash'],
      ['status', '-q'],
    ])
      expect((await runlock(agent, args, { env })).stderr).toBe('');
    expect((await runlock(agent, ['status'], { env: { RUNLOCK_WIAT: '' } })).stderr).toBe('');
  });

  test('without a right name near is said with -v alone: a site may have its own', async () => {
    const env = {
      RUNLOCK_SITE_OWNER: 'x',
      RUNLOCK_VERSION: '1.2',
      RUNLOCK_COMMAND: 'x',
      RUNLOCK_RUN_ID: 'x',
    };
    expect((await runlock(agent, ['status'], { env })).stderr).toBe('');
    const { stderr } = await runlock(agent, ['status', '-v'], { env });
    expect(stderr).toContain('runlock: RUNLOCK_SITE_OWNER is set, but runlock has no such variable\n');
    expect(stderr).not.toMatch(/RUNLOCK_(?:VERSION|COMMAND|RUN_ID)/);
  });
});

describe('times', () => {
  const MILLISECONDS = /\d:\d\d\.\d+Z/;
  const SECONDS = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/;

  test('that people read have no milliseconds; those in JSON have', async () => {
    const hold = ['--node', 'web01', '-g', 'times', '--hold', '1h'];
    const failed = await runlock(agent, ['exec', ...hold, '--', 'false']);
    const acquired = await runlock(agent, ['acquire', 'times-held', '--hold', '1h', '-v']);
    const again = await runlock(agent, ['acquire', 'times-held', '--hold', '1h', '-v']);
    const given = await runlock(agent, ['release', 'times-held', '--failed']);
    await runlock(agent, ['freeze', 'times-ice', '--reason', 'x', '--for', '1h']);
    const frozen = await runlock(agent, ['exec', '-g', 'times-ice', '-w', '600ms', '-v', '--', 'true']);
    const texts = [failed.stderr, acquired.stderr, again.stderr, given.stdout, frozen.stderr];
    for (const text of texts) {
      expect(text).toMatch(SECONDS);
      expect(text).not.toMatch(MILLISECONDS);
    }
    for (const args of [
      ['status'],
      ['history'],
      ['config'],
      ['freeze', 'times-ice', '--reason', 'y', '--for', '1h'],
    ])
      expect((await runlock(agent, args)).stdout).not.toMatch(MILLISECONDS);
    for (const args of [
      ['status', '--json'],
      ['history', '--json'],
    ])
      expect((await runlock(agent, args)).stdout).toMatch(MILLISECONDS);
  });
});
