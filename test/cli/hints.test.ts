// Commands that runlock tells people to run: copied as they stand they work, below another prefix too.
import { readFileSync, readdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { RUNLOCK, clean } from '../support/program.ts';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const agent = useAgent();

const below = (...words: string[]) => [...words.slice(0, 1), '--prefix', 'ops/locks', ...words.slice(1)];
const run = (...words: string[]) => runlock(agent, below(...words));
const on = (group: string) => groupOf(agent, group, { args: ['--prefix', 'ops/locks'] });
const fail = (group: string, node: string) => on(group).exec(node, '--', 'sh', '-c', 'exit 3');
const owner = (group: string) => agent.kv.get(`ops/locks/${group}/.slot/0/owner`);

/** What stands in quotes, or behind `fix: `. */
function hintIn(text: string): string {
  const [, quoted, fix] = /'(runlock [^']+)'|fix: (runlock .+)/.exec(text) ?? [];
  const found = quoted ?? fix;
  if (found === undefined) throw new Error(`no command in: ${text}`);
  return found;
}

/** In a shell, as an operator pastes it. */
async function paste(line: string): Promise<string> {
  const { folder } = stage();
  symlinkSync(RUNLOCK, join(folder, 'runlock'));
  const env = { ...clean, ...agent.env, PATH: `${folder}:${process.env['PATH'] ?? ''}` };
  return (await execa('sh', ['-c', line], { env, extendEnv: false })).stdout;
}

describe('below another prefix a command that is printed acts there', () => {
  test('what a failed run and status say clears the claim', async () => {
    const failed = await fail('failed/a', 'web01');
    expect(hintIn(failed.stderr)).toBe('runlock release failed/a --owner web01 --prefix ops/locks');
    expect(await paste(hintIn(failed.stderr))).toMatch(/^cleared the failed claim of web01/);
    await fail('failed/a', 'web02');
    const { stdout } = await run('status', 'failed/a');
    expect(await paste(hintIn(stdout))).toMatch(/^cleared the failed claim of web02/);
    expect(await owner('failed/a')).toBeUndefined();
  });

  test('what busy says shows the holder', async () => {
    await fail('busy/a', 'web01');
    const { status, stderr } = await on('busy/a').exec('web02', '-w', '0', '--', 'true');
    expect(status).toBe(75);
    expect(await paste(hintIn(stderr))).toMatch(/web01 failed/);
  });

  test('what a refused release says ends the run', async () => {
    const held = await on('alive/a').hold();
    const refused = await run('release', 'alive/a', '--owner', 'web01');
    expect(refused.status).toBe(75);
    expect(await paste(hintIn(refused.stderr))).toMatch(/^evicted web01/);
    expect((await held.ended).status).toBe(79);
  });

  test('what freeze, status and a thaw in the wrong place say ends the freeze', async () => {
    for (const source of ['freeze', 'status', 'thaw'] as const) {
      const { stdout } = await run('freeze', 'ice', '--reason', 'x');
      const said = source === 'freeze' ? stdout : '';
      const status = source === 'status' ? (await run('status', 'ice/web')).stdout : '';
      const thaw = source === 'thaw' ? (await run('thaw', 'ice/web')).stderr : '';
      expect(await paste(hintIn(said + status + thaw))).toMatch(/^thawed ice/);
    }
  });

  test('what acquire and release --failed say gives back and clears', async () => {
    const acquired = await run('acquire', 'half/a', '--node', 'web01', '-v');
    expect(hintIn(acquired.stderr)).toBe('runlock release half/a --prefix ops/locks');
    const busy = await on('half/a').exec('web01', '-w', '0', '--', 'true');
    expect(busy.stderr).toContain("to release: 'runlock release half/a --prefix ops/locks'");
    const failed = await run('release', 'half/a', '--node', 'web01', '--failed');
    expect(await paste(hintIn(failed.stdout))).toMatch(/^cleared the failed claim of web01/);
  });

  test('what doctor says of a claim without a node clears it', async () => {
    await fail('gone/a', 'gone01');
    const { stdout } = await run('doctor', '-g', 'gone/a');
    const [, line = ''] = /if that node is gone for good: (runlock .*)/.exec(stdout) ?? [];
    expect(await paste(line)).toMatch(/^cleared the failed claim of gone01/);
  });
});

test('a prefix that a variable names is in it too: another shell need not have that variable', async () => {
  const env = { RUNLOCK_PREFIX: 'ops/locks' };
  const { stdout } = await runlock(agent, ['freeze', 'variable', '--reason', 'x'], { env });
  expect(hintIn(stdout)).toBe('runlock thaw variable --prefix ops/locks');
});

test('below the usual prefix nothing is said of it', async () => {
  const { stdout } = await runlock(agent, ['freeze', 'usual', '--reason', 'x']);
  expect(hintIn(stdout)).toBe('runlock thaw usual');
});

// Forget came later: it has said what would go, and what is in use no --force removes.
test('a refused release or forget alone prints --force: it has said what to look at first', () => {
  const files = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.ts'),
  );
  const forcing = files.filter((name) => /hint\([^)]*'--force'/.test(readFileSync(`src/${name}`, 'utf8')));
  expect(forcing.sort()).toEqual(['commands/forget/forget.ts', 'commands/release/forced.ts']);
});

test('no command is put together anywhere else', () => {
  const files = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.ts'),
  );
  const made = files.filter((name) =>
    /runlock (?:\w+ )*[^'`\n]*\$\{/.test(commandsIn(readFileSync(`src/${name}`, 'utf8'))),
  );
  expect(made).toEqual([]);
});

/** Lines with one of the commands that are about a group. */
const commandsIn = (source: string) =>
  source
    .split('\n')
    .filter((line) => /runlock (?:exec|acquire|release|status|freeze|thaw|history|doctor) /.test(line))
    .join('\n');
