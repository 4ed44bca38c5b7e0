// What people read, on terminals of several widths.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { commands } from '../../src/commands/registry.ts';
import { scene } from '../support/processes.ts';
import { useAgent } from '../support/use-agent.ts';
import { runlock } from '../support/runlock.ts';
import { startInTerminal } from '../support/terminal.ts';

const agent = useAgent();

const WIDTHS = [40, 60, 80, 120];
const COMMANDS = commands.map(({ name }) => name).filter((name) => !name.startsWith('_'));

/** What a terminal of so many columns shows of a command that ends with `status`. */
async function onTerminal(
  columns: number,
  args: readonly string[],
  status?: number,
): Promise<readonly string[]> {
  const shell = (command: string) => `stty cols ${columns} rows 24; exec ${command}`;
  const run = startInTerminal(agent, args, { shell, env: { NO_COLOR: '1' } });
  const ended = await run.ended;
  if (status !== undefined) expect({ args, ended }).toEqual({ args, ended: status });
  return run.screen().trimEnd().split('\r\n');
}

/** A name longer than the terminal, or a command to copy: no line break may be put into either. */
const isOneWord = (line: string) =>
  /^ *(?:fix: |problem: )?'?runlock /.test(line) ||
  /^ *(?:\S+: +)?\S+$/.test(line) ||
  line.includes("'runlock ");

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
    // A terminal for each would take minutes.
    if (columns === 60) expect(await onTerminal(columns, args)).toEqual(lines);
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

  test.each([60, 80, 120])('ends its lines at words, and goes on indented: %i columns', async (columns) => {
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

  test('is one line everywhere else', async () => {
    const { stderr } = await runlock(agent, LONG, { env: { COLUMNS: '20' } });
    expect(stderr).toMatch(/^runlock: [^\n]+\n$/);
  });
});

describe('a result on a terminal', () => {
  /** Commands that print, with the exit status each has here. */
  const RESULTS: readonly (readonly [string, number])[] = [
    ['state set services/storage/schema version-42-of-the-tables-that-all-share', 0],
    ['state set services/storage/schema 43 --if-value the-one-that-it-had-before-all-this', 1],
    ['state list', 0],
    ['state list services/that-nobody-has-ever-published/anything-below', 0],
    ['state delete services/storage/schema', 0],
    ['state prune', 0],
    ['wait --until idle:wide/with-a-long-name --timeout 30s', 0],
    ['gate check --service service-that-nobody-has-registered --allow-unknown-service', 0],
    ['gate enter --service service-that-nobody-has-registered --allow-unknown-service', 0],
    ['gate leave --service service-that-nobody-has-registered', 0],
    ['doctor', 0],
    ['doctor -g wide/with-a-long-name -g wide/with-another-name -g wide/with-a-third-name', 0],
    ['config', 0],
    ['config status', 0],
    ['history --silent-for 1d -g wide/with-a-long-name', 0],
    ['history --forget web01 -g wide/with-a-long-name', 0],
    ['history -g wide/with-a-long-name', 0],
    ['freeze wide/with-a-long-name --reason the-storage-below-it-is-moved-today', 0],
    ['status', 0],
    ['status wide/with-a-long-name', 0],
    ['thaw wide/with-a-long-name', 0],
    ['forget wide/with-a-long-name --force', 0],
    ['forget wide/with-a-long-name --force', 0],
    ['acquire -g wide/with-a-long-name --node web01', 0],
    ['release wide/with-a-long-name --owner web01 --force', 0],
    ['release wide/with-a-long-name --owner web01 --force', 0],
  ];
  // Of their own: groups of other tests have longer names.
  const named = (line: string) =>
    `${line}${line.startsWith('config') ? '' : ' --prefix narrow'} --config /dev/null`.split(' ');

  test.each([40, 60])('ends its lines at words, for each command: %i columns', async (columns) => {
    const exec = 'exec --prefix narrow -g wide/with-a-long-name --node web01 -- true';
    await runlock(agent, exec.split(' '));
    for (const [line, status] of RESULTS) {
      const lines = await onTerminal(columns, named(line), status);
      const tooWide = lines.filter((each) => each.length > columns && !isOneWord(each));
      expect({ line, tooWide }).toEqual({ line, tooWide: [] });
      // Only a column of a table may be cut, with a sign that it was.
      if (line !== 'state list') expect(lines.join('\n')).not.toContain('…');
    }
  });

  test.each([40, 60])('ends its lines at words: tasks, %i columns', async (columns) => {
    const { folder, clean } = scene();
    const tasks = join(folder, 'tasks.d');
    mkdirSync(tasks, { mode: 0o755 });
    const text = 'command = ["/bin/echo"]\ndescription = "converge this node with all of its cookbooks"\n';
    writeFileSync(join(tasks, 'chef.toml'), text, { mode: 0o600 });
    const task = (action: string) => `task ${action} --tasks-dir ${tasks} --config /dev/null`.split(' ');
    try {
      for (const action of ['list', 'show chef']) {
        const lines = await onTerminal(columns, task(action), 0);
        expect(lines.filter((line) => line.length > columns && !isOneWord(line))).toEqual([]);
        const piped = await runlock(agent, task(action), { env: { COLUMNS: String(columns) } });
        expect(words(lines)).toEqual(expect.arrayContaining(words(piped.stdout.split('\n').slice(1))));
      }
    } finally {
      clean();
    }
  });

  test.each([40, 80])('is as in a pipe, but for its line breaks: %i columns', async (columns) => {
    for (const line of ['config', 'config status', 'gate check --service none-such', 'state prune']) {
      const piped = await runlock(agent, named(line), { env: { COLUMNS: String(columns) } });
      const lines = await onTerminal(columns, named(line), piped.status);
      expect(words(lines)).toEqual(words(`${piped.stdout}\n${piped.stderr}`.split('\n')));
    }
  });

  test('takes COLUMNS before the width of the terminal', async () => {
    const run = startInTerminal(agent, named('doctor'), { env: { COLUMNS: '50', NO_COLOR: '1' } });
    await run.ended;
    const widths = run
      .screen()
      .split('\r\n')
      .map((line) => line.length);
    expect(Math.max(...widths)).toBeLessThanOrEqual(50);
    expect(Math.max(...widths)).toBeGreaterThan(40);
  });

  test('is one line a fact in a pipe, whatever COLUMNS says', async () => {
    // How long Consul took to answer differs.
    const stable = ({ stdout }: { readonly stdout: string }) => stdout.replace(/\d+ ms$/m, '');
    for (const line of ['doctor', 'config', 'state prune', 'gate check --service none-such']) {
      const wide = await runlock(agent, named(line), { env: { COLUMNS: undefined } });
      const narrow = await runlock(agent, named(line), { env: { COLUMNS: '30' } });
      expect(stable(narrow)).toBe(stable(wide));
    }
  });
});
