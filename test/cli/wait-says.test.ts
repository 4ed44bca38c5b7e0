// What `runlock wait` says while it waits, and where its line is wrong.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { widthOf } from '../../src/text/style.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { startInTerminal } from '../support/terminal.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

const wait = (...args: string[]) => ['wait', '--timeout', '30s', ...args];
const inColumns = (columns: number) => ({
  shell: (command: string) => `stty cols ${columns} rows 24; exec ${command}`,
  env: { NO_COLOR: '1' },
});
const until = (texts: readonly string[]) => texts.flatMap((text) => ['--until', text]);

describe('on a terminal', () => {
  test('of 40 columns the live line fits, whatever is in the values', async () => {
    const long = 'x'.repeat(500);
    await runlock(agent, ['state', 'set', 'wide/a', `${long}\x1b[2J\n\x9b31m${'界'.repeat(50)}`]);
    const shown = startInTerminal(agent, wait(...until(['state:wide/a=1', 'state:wide/b'])), inColumns(40));
    await shown.shows(/waiting \ds of 30s · state:wide/);
    await shown.shows(/waiting 3s of 30s/);
    // Redrawn in place: a line that wraps would leave its first half behind.
    const lines = shown
      .screen()
      .split(/\r\n|\r/)
      .map((line) => line.replaceAll('\x1b[K', ''));
    expect(Math.max(...lines.map(widthOf))).toBeLessThan(40);
    for (const escape of ['\x1b[2J', '\x9b']) expect(shown.screen()).not.toContain(escape);
    shown.type('\x03');
    expect(await shown.ended).toBe(130);
  });

  test('Ctrl-C ends it with 130, one line, and nothing left of the live line', async () => {
    const shown = startInTerminal(agent, wait('--until', 'state:never'), inColumns(80));
    await shown.shows(/waiting \ds of 30s/);
    shown.type('\x03');
    expect(await shown.ended).toBe(130);
    const left = shown.screen().split('\r\x1b[K').at(-1) ?? '';
    expect(left).toMatch(
      /^(?:\^C)?runlock: stopped by a signal after \ds: state:never: never is not set\r\n$/,
    );
  });

  test.each([['-q'], ['--log-format', 'json']])(
    '%s %s draws no line over what it is asked for',
    async (...flags) => {
      const args = ['wait', '--timeout', '2500ms', ...flags, '--until', 'state:never'];
      const shown = startInTerminal(agent, args, inColumns(80));
      expect(await shown.ended).toBe(75);
      expect(shown.screen()).not.toContain('waiting');
    },
  );
});

describe('elsewhere', () => {
  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s ends it with %i, one line on stderr, and nothing on stdout', async (signal, expected) => {
    const running = startRunlock(agent, wait('--json', '-v', '--until', 'state:never'));
    await running.says(/does not hold/);
    running.signal(signal);
    const { status, stdout, stderr } = await running.ended;
    expect({ status, stdout }).toEqual({ status: expected, stdout: '' });
    expect(stderr.trim().split('\n').slice(1)).toEqual([
      expect.stringMatching(/^runlock: stopped by a signal after 0s: state:never: never is not set$/),
    ]);
  });

  test('it says nothing until it ends', async () => {
    const running = startRunlock(agent, ['wait', '--timeout', '2500ms', '--until', 'state:never']);
    const { stdout, stderr } = await running.ended;
    expect(stdout).toBe('');
    expect(stderr).toMatch(/^runlock: timed out after 2s: state:never: never is not set\n$/);
  });

  test('conditions that contradict each other are each told once, and time out', async () => {
    const both = ['--until', 'state:never', '--while', 'state:never', '--until', 'not:state:never'];
    const { status, stderr } = await runlock(agent, ['wait', '-v', '--timeout', '1500ms', ...both]);
    expect(status).toBe(75);
    const told = stderr.split('\n').filter((line) => / holds: | does not hold: /.test(line));
    // Those of --until first, and then those of --while.
    expect(told).toEqual([
      'runlock: state:never does not hold: never is not set',
      'runlock: not:state:never holds: never is not set',
      'runlock: state:never does not hold: never is not set',
    ]);
    expect(stderr).toMatch(/timed out after 1s: state:never: never is not set\n$/);
  });
});

describe('--since', () => {
  test.each([
    ['2026-02-31T00:00:00Z', /not a time; write date, time, and Z or an offset, like 2026-03-01T12:00:00Z/],
    ['2026-03-01T25:00:00Z', /not a time/],
    // In some zones there are two of them, or none.
    ['2026-03-29T02:30:00', /not a time; write date, time, and Z or an offset/],
    ['2026-03-29', /not a time/],
    ['soon', /--since soon: write a duration like 30m, a time like 2026-03-01T12:00:00Z, or start/],
  ])('%s is refused: 64', async (since, message) => {
    const args = ['wait', '--timeout', '0', '--until', 'good:n', '--since', since];
    const { status, stderr } = await runlock(agent, args);
    expect(status).toBe(64);
    expect(stderr).toMatch(message);
  });

  test('takes an offset, whatever the zone of the host', async () => {
    await runlock(agent, ['exec', '-g', 'since', '--node', 'n', '--', 'true']);
    const good = async (since: string) => {
      const args = ['wait', '--timeout', '0', '--until', 'good:n@since', '--since', since];
      return (await runlock(agent, args, { env: { TZ: 'Europe/Berlin' } })).status;
    };
    const hour = 3_600_000;
    const at = (ms: number) => new Date(Date.now() + ms + 2 * hour).toISOString().replace('Z', '+02:00');
    expect([await good(at(-hour)), await good(at(hour))]).toEqual([0, 75]);
  });
});

test('every field of --json is described in docs/waiting.md', async () => {
  const { stdout } = await runlock(agent, ['wait', '--timeout', '0', '--json', '--until', 'idle:g']);
  const said = JSON.parse(stdout) as { conditions: object[] };
  const page = readFileSync(new URL('../../docs/waiting.md', import.meta.url), 'utf8');
  for (const field of [...Object.keys(said), ...Object.keys(said.conditions[0] ?? {})])
    expect(page).toContain(`\`${field}\``);
});
