// What people read, on terminals of several widths.
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { runlock } from '../support/runlock.ts';
import { startInTerminal } from '../support/terminal.ts';

const agent = useAgent();

const WIDTHS = [60, 80, 120];
const COMMANDS =
  'exec acquire status release history forget freeze thaw state wait gate doctor completion config'.split(
    ' ',
  );

/** What a terminal of so many columns shows of a command that ends. */
async function onTerminal(columns: number, args: readonly string[]): Promise<readonly string[]> {
  const shell = (command: string) => `stty cols ${columns} rows 24; exec ${command}`;
  const run = startInTerminal(agent, args, { shell, env: { NO_COLOR: '1' } });
  await run.ended;
  return run.screen().trimEnd().split('\r\n');
}

const words = (lines: readonly string[]) =>
  lines
    .map((line) => line.trim().replace(/ \\$/, ''))
    .join(' ')
    .split(/\s+/)
    .filter((word) => word !== '' && word !== '#')
    .sort();

describe.each(WIDTHS)('in %i columns', (columns) => {
  test.each(['', ...COMMANDS])('help fits, with every word whole: %s', async (name) => {
    const args = [name, '--help'].filter(Boolean);
    const wide = await runlock(agent, args, { env: { COLUMNS: '1000' } });
    const piped = await runlock(agent, args, { env: { COLUMNS: String(columns) } });
    const lines = piped.stdout.trimEnd().split('\n');
    expect(lines.filter((line) => line.length > columns)).toEqual([]);
    expect(words(lines)).toEqual(words(wide.stdout.split('\n')));
    // It uses the room that there is.
    expect(Math.max(...lines.map((line) => line.length))).toBeGreaterThan(columns * 0.6);
    expect(await onTerminal(columns, args)).toEqual(lines);
  });
});

describe('help', () => {
  test('in a pipe without COLUMNS is for 80 columns, and a COLUMNS that is no width is none', async () => {
    const usual = await runlock(agent, ['exec', '--help'], { env: { COLUMNS: undefined } });
    const lengths = usual.stdout.split('\n').map((line) => line.length);
    expect(Math.max(...lengths)).toBeGreaterThan(72);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(80);
    for (const COLUMNS of ['', '0', '-5', 'wide', '1e9', '999999999999'])
      expect((await runlock(agent, ['exec', '--help'], { env: { COLUMNS } })).stdout).toBe(usual.stdout);
  });

  test('COLUMNS comes before the width of the terminal', async () => {
    const shell = (command: string) => `stty cols 120 rows 24; exec ${command}`;
    const run = startInTerminal(agent, ['exec', '--help'], { shell, env: { COLUMNS: '60' } });
    await run.ended;
    const { stdout } = await runlock(agent, ['exec', '--help'], { env: { COLUMNS: '60' } });
    expect(run.screen().replaceAll('\r\n', '\n')).toBe(stdout);
  });

  test('examples that are broken are still commands', async () => {
    const { stdout } = await runlock(agent, ['exec', '--help'], { env: { COLUMNS: '60' } });
    expect(stdout).toContain(
      '  runlock exec -g prod/db --hold 4h --timeout 1h -- puppet \\\n      agent --test\n',
    );
  });
});

describe('a sentence of the log on a terminal', () => {
  const LONG = ['exec', '-w', 'the-longest-word-of-them-all-that-nobody-may-cut', '--', 'true'];

  test.each(WIDTHS)('ends its lines at words, and goes on indented: %i columns', async (columns) => {
    const lines = await onTerminal(columns, LONG);
    const { stderr } = await runlock(agent, LONG);
    expect(lines.join(' ').split(/\s+/)).toEqual(stderr.trim().split(/\s+/));
    expect(lines.length).toBeGreaterThan(1);
    for (const [i, line] of lines.entries()) {
      expect(line).toMatch(i === 0 ? /^runlock: \S/ : /^ {2}\S/);
      expect(line.length).toBeLessThanOrEqual(columns);
    }
  });

  test('leaves a command that it quotes in one piece, for people to copy', async () => {
    const name = `${'long-'.repeat(12)}name`;
    await runlock(agent, ['exec', '-g', name, '--node', 'web01', '--', 'false']);
    const lines = await onTerminal(60, ['exec', '-g', name, '--node', 'web02', '-w', '0', '--', 'true']);
    expect(lines.join('\n')).toContain(`'runlock status ${name}'`);
    expect(lines.length).toBeGreaterThan(1);
  });

  test('is broken so on stdout too: what freeze, thaw and release did', async () => {
    const reason = 'the storage below all of these groups is being moved to another room today';
    const freeze = ['freeze', 'wide', '--reason', reason];
    await runlock(agent, ['exec', '-g', 'wide', '--node', 'web01', '--', 'false']);
    for (const args of [freeze, ['thaw', 'wide'], ['release', 'wide', '--owner', 'web01']]) {
      const lines = await onTerminal(40, args);
      expect(lines.length).toBeGreaterThan(1);
      for (const line of lines) if (!line.includes("'runlock ")) expect(line.length).toBeLessThanOrEqual(40);
    }
    const piped = await runlock(agent, freeze, { env: { COLUMNS: '40' } });
    expect(piped.stdout).toContain(reason);
  });

  test('is one line everywhere else', async () => {
    const { stderr } = await runlock(agent, LONG, { env: { COLUMNS: '20' } });
    expect(stderr).toMatch(/^runlock: [^\n]+\n$/);
  });
});
