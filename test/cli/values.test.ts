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
