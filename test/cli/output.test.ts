// What runlock says, where, and when it keeps silent: cron mails whatever is printed.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { end, eventually } from '../support/processes.ts';
import { startInTerminal } from '../support/terminal.ts';
import { stage } from '../support/stage.ts';
import { runlock } from '../support/runlock.ts';
import { RUNLOCK, clean } from '../support/program.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

const silent = (status: number) => ({ status, stdout: '', stderr: '' });

describe('without a terminal', () => {
  test('a run that ended well is silent, whether it waited or not', async () => {
    expect(await on('silent').exec('web01', '--', 'true')).toEqual(silent(0));
    const { end: free } = await on('silent').hold();
    const waiter = on('silent').start('web02', '--', 'true');
    await on('silent').waiting();
    await free();
    expect(await waiter.ended).toEqual(silent(0));
  });

  test('busy because this node runs already is silent', async () => {
    const { end: free } = await on('twice').hold();
    // It waits for its node's turn unless it must not.
    expect(await on('twice').exec('web01', '-w', '0', '--', 'true')).toEqual(silent(75));
    await free();
  });

  test('busy because this node waits already is silent', async () => {
    const { end: free } = await on('waits').hold();
    const waiter = on('waits').start('web02', '--', 'true');
    await on('waits').waiting();
    expect(await on('waits').exec('web02', '-w', '0', '--', 'true')).toEqual(silent(75));
    await free();
    expect(await waiter.ended).toEqual(silent(0));
  });

  test('busy after the whole --wait is one line: who has the slot, and where to look', async () => {
    await on('busy').exec('web01', '--', 'false');
    for (const [wait, within] of [
      ['0', ''],
      ['1s', ' within 1s'],
    ] as const) {
      const { status, stdout, stderr } = await on('busy').exec('web02', '-w', wait, '--', 'true');
      expect({ status, stdout }).toEqual({ status: 75, stdout: '' });
      const said = stderr.replace(/\d+s ago/, 'Ns ago');
      expect(said).toBe(
        `runlock: busy: no slot available in busy${within} (slot 0: web01 failed Ns ago (false, exit 1)); see 'runlock status busy'\n`,
      );
    }
  });

  test('a frozen group is one line, whatever was written into the reason', async () => {
    await on('frozen').freeze('anna', 'new year\nsee the wiki');
    const { stderr } = await on('frozen').exec('web01', '-w', '0', '--', 'true');
    expect(stderr).toMatch(/^runlock: busy: frozen was frozen \d+s ago by anna \([^\n]+\n$/);
  });

  test('a failed run is one line: its code, and who keeps what until when', async () => {
    const { stderr } = await on('failed').exec('web01', '--', 'sh', '-c', 'exit 3');
    expect(stderr).toMatch(
      /^runlock: sh exited 3 after 0s; web01 still holds slot 0 of failed until a run succeeds; to clear: 'runlock release failed --owner web01'\n$/,
    );
  });
});

describe('-v and -q', () => {
  test('-v, or RUNLOCK_VERBOSE, says what happens', async () => {
    for (const [args, env] of [
      [['-v'], {}],
      [[], { RUNLOCK_VERBOSE: 'true' }],
    ] as const) {
      const { status, stderr } = await groupOf(agent, 'loud', { env }).exec('web01', ...args, '--', 'true');
      expect(status).toBe(0);
      const lines = stderr.trimEnd().split('\n');
      expect(lines.every((line) => line.startsWith('runlock: '))).toBe(true);
      expect(stderr).toMatch(/^runlock: web01 acquired slot 0 of loud \(waited \d+s\)$/m);
      expect(stderr).toMatch(/^runlock: true exited 0 after \d+s; released slot 0 of loud$/m);
    }
  });

  test('-v says why this node is busy', async () => {
    const { end: free } = await on('why').hold();
    const { stderr } = await on('why').exec('web01', '-v', '-w', '0', '--', 'true');
    expect(stderr).toMatch(
      /^runlock: busy: web01 is already running or queued in why \(pid \d+, sh, for \d+s\)$/m,
    );
    await free();
  });

  test('-q says only errors', async () => {
    expect(await on('quiet').exec('web01', '-q', '--', 'false')).toEqual(silent(1));
    expect(await on('quiet').exec('web02', '-q', '-w', '0', '--', 'true')).toEqual(silent(75));
    expect((await on('quiet').exec('web02', '-q', '--', 'no-such-program')).stderr).toMatch(
      /^runlock: cannot run no-such-program: [^\n]+\n$/,
    );
  });
});

describe('--log-format json', () => {
  const parse = (stderr: string) =>
    stderr
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);

  test('one object a line, with stable names', async () => {
    const { stderr } = await on('json').exec('web01', '--log-format', 'json', '--', 'sh', '-c', 'exit 3');
    const lines = parse(stderr);
    for (const line of lines) {
      expect(Object.keys(line).slice(0, 3)).toEqual(['time', 'level', 'message']);
      expect(new Date(String(line['time'])).toISOString()).toBe(line['time']);
    }
    const of = (event: string) => lines.find((line) => line['event'] === event);
    const place = { group: 'json', node: 'web01', slot: 0 };
    expect(of('granted')).toMatchObject({ ...place, level: 'info' });
    expect(Object.keys(of('granted') ?? {})).toEqual(
      expect.arrayContaining(['run', 'fencingToken', 'waitedMs']),
    );
    expect(of('ended')).toMatchObject({ ...place, level: 'warning', outcome: 'failed', exitCode: 3 });
    expect(Object.keys(of('ended') ?? {})).toEqual(expect.arrayContaining(['ranMs', 'released']));
  });

  test('busy too', async () => {
    await on('json-busy').exec('web01', '--', 'false');
    const { stderr } = await on('json-busy').exec('web02', '--log-format', 'json', '-w', '0', '--', 'true');
    expect(parse(stderr)).toMatchObject([
      { level: 'warning', event: 'busy', group: 'json-busy', why: 'slots' },
    ]);
  });

  test('and errors: a collector reads every line', async () => {
    const result = await on('json').exec('web02', '--log-format', 'json', '--', 'no-such-program');
    expect(result.status).toBe(127);
    expect(parse(result.stderr)).toMatchObject([{ level: 'error' }]);
  });
});

describe('under systemd', () => {
  /** stderr goes to a file, as to the journal's socket; JOURNAL_STREAM names this file, or another. */
  async function toFile(args: readonly string[], names: 'it' | 'another'): Promise<string> {
    const file = `${stage().folder}/stderr`;
    const fd = openSync(file, 'w');
    const { dev, ino } = fstatSync(fd);
    const env = { ...clean, ...agent.env, JOURNAL_STREAM: `${dev}:${names === 'it' ? ino : ino + 1}` };
    const child = spawn(RUNLOCK, args, { env, detached: true, stdio: ['ignore', 'ignore', fd] });
    closeSync(fd);
    onTestFinished(() => {
      if (child.exitCode === null && child.pid !== undefined) end(child.pid);
    });
    await once(child, 'close');
    return readFileSync(file, 'utf8');
  }

  test('every line has its priority, information too, and no colour', async () => {
    const said = await toFile(on('journal').words('web01', '--', 'false'), 'it');
    expect(said).toMatch(/^<6>runlock: web01 acquired slot 0 of journal \(waited \d+s\)$/m);
    expect(said).toMatch(/^<4>runlock: false exited 1 after \d+s; web01 still holds slot 0/m);
    expect(
      said
        .trimEnd()
        .split('\n')
        .every((line) => /^<[3-7]>runlock: /.test(line)),
    ).toBe(true);
    expect(said).not.toContain('\u001b');
    expect(await toFile(on('journal').words('web01', '--', 'no-such-program'), 'it')).toMatch(
      /^<3>runlock: cannot run/,
    );
  });

  test('a redirected stderr is no journal', async () => {
    expect(await toFile(on('redirected').words('web01', '--', 'true'), 'another')).toBe('');
  });
});

describe('on a terminal', () => {
  interface Screen {
    readonly pid: number;
    text(): string;
    /** What is left to see: each line as its last redrawing left it. */
    seen(): string;
    readonly ended: Promise<number | null>;
  }

  /** Starts runlock on a terminal of its own (script(1)). */
  function onTerminal(
    args: readonly string[],
    { columns = 100, env = {} }: { columns?: number; env?: Record<string, string> } = {},
  ): Screen {
    const line = [RUNLOCK, ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
    const child = spawn('script', ['-qec', `stty cols ${columns} rows 24; exec ${line}`, '/dev/null'], {
      env: { ...clean, TERM: 'xterm', ...agent.env, ...env },
      detached: true,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => (text += part));
    const ended = once(child, 'close').then(([code]) => code as number | null);
    onTestFinished(() => {
      if (child.exitCode === null && child.pid !== undefined) end(child.pid);
    });
    const lines = () =>
      text.split('\n').map((each) => each.split('\r\u001b[K').at(-1)?.replace(/\r$/, '') ?? '');
    return { pid: child.pid ?? 0, text: () => text, seen: () => lines().join('\n'), ended };
  }

  /** The line that is drawn now. */
  const says = (screen: Screen, pattern: RegExp) =>
    eventually(() => expect(screen.seen().split('\n').at(-1)).toMatch(pattern));

  test('a waiting exec shows its place, who has the slot and for how long; then the line is gone', async () => {
    const { end: free } = await on('live').hold();
    const first = onTerminal(on('live').words('web02', '--', 'echo', 'done'));
    await says(first, /^waiting \d+s for live · place 1 · web01 running sh for \d+s$/);
    const second = onTerminal(on('live').words('web03', '--', 'echo', 'done'));
    await says(second, /^waiting \d+s for live · place 2 · web01 running sh for \d+s$/);
    // It is one line, drawn over and over.
    await says(first, /^waiting [2-9]s for live/);
    expect(first.text()).not.toMatch(/waiting[^\r]*\n/);
    await free();
    for (const screen of [first, second]) {
      expect(await screen.ended).toBe(0);
      expect(screen.seen()).not.toMatch(/waiting \d+s for/);
      expect(screen.seen()).toMatch(/^runlock: web0[23] acquired slot 0 of live \(waited \d+s\)$/m);
      expect(screen.seen()).toMatch(/^done$/m);
    }
  });

  test('a failed claim is named with its state', async () => {
    await on('live-failed').exec('web01', '--', 'false');
    const screen = onTerminal(on('live-failed').words('web02', '--', 'true'));
    await says(screen, /^waiting \d+s for live-failed · place 1 · web01 failed \d+s ago \(false\)$/);
    await runlock(agent, ['release', 'live-failed', '--owner', 'web01']);
    expect(await screen.ended).toBe(0);
    expect(screen.seen()).not.toMatch(/waiting \d+s for/);
  });

  test('it is gone too when the wait was in vain', async () => {
    await on('live-vain').exec('web01', '--', 'false');
    const screen = onTerminal(on('live-vain').words('web02', '-w', '2s', '--', 'true'));
    await says(screen, /^waiting/);
    expect(await screen.ended).toBe(75);
    expect(screen.seen()).not.toMatch(/waiting \d+s for/);
    expect(screen.seen()).toMatch(/busy: no slot available in live-vain within 2s/);
  });

  test('it never wraps: a narrow terminal cuts it', async () => {
    await on('live-narrow').exec('web01', '--', 'false');
    const screen = onTerminal(on('live-narrow').words('web02', '--', 'true'), { columns: 20 });
    await says(screen, /^waiting \d+s for l.*…$/);
    expect(screen.seen().split('\n').at(-1)).toHaveLength(19);
  });

  test('--splay shows how long it still lasts, and nothing once it is over', async () => {
    const run = startInTerminal(agent, on('live-splay').words('web02', '--splay', '1h', '--', 'true'));
    await run.shows(/waiting [0-9ms]+ before asking for a slot \(--splay\)/);
    run.type('\x03');
    expect(await run.ended).toBe(130);
    expect(run.screen().split('\r\u001b[K').at(-1)).not.toContain('waiting');
  });

  test('a connection that is tried again shows a line while that lasts, and then what is wrong', async () => {
    const env = { CONSUL_HTTP_ADDR: '127.0.0.1:1', NO_COLOR: '1' };
    const show = async (args: readonly string[]) => {
      const screen = onTerminal(args, { env });
      await says(screen, /^Consul at 127\.0\.0\.1:1 .*; retrying$/);
      expect(await screen.ended).toBe(69);
      expect(screen.seen()).not.toContain('retrying');
      expect(screen.seen()).toMatch(/^runlock: Consul at 127\.0\.0\.1:1 /);
    };
    await Promise.all([['status'], ['freeze', 'a', '--reason', 'x'], ['exec', '--', 'true']].map(show));
  });

  test('no such line where the log is not for people: -q, JSON, TERM=dumb, a pipe', async () => {
    const env = { CONSUL_HTTP_ADDR: '127.0.0.1:1' };
    const screens = [
      onTerminal(['status', '-q'], { env }),
      onTerminal(['status', '--log-format', 'json'], { env }),
      onTerminal(['status'], { env: { ...env, TERM: 'dumb' } }),
    ];
    for (const screen of screens) {
      expect(await screen.ended).toBe(69);
      expect(screen.text()).not.toContain('retrying');
    }
    const { stderr } = await runlock(agent, ['status'], { env });
    expect(stderr).toMatch(/^runlock: [^\n]+\n$/);
    expect(stderr).not.toContain('retrying');
  });

  test('a terminal that does not know its width shows the line all the same', async () => {
    await on('live-unknown').exec('web01', '--', 'false');
    const screen = onTerminal(on('live-unknown').words('web02', '--', 'true'), { columns: 0 });
    await says(screen, /^waiting \d+s for live-unknown/);
  });

  test('a dumb terminal, -q and json get no such line', async () => {
    await on('dumb').exec('web01', '--', 'false');
    const args = (...more: string[]) => on('dumb').words('web02', ...more, '-w', '1500ms', '--', 'true');
    const screens = [
      onTerminal(args(), { env: { TERM: 'dumb' } }),
      onTerminal(args('-q')),
      onTerminal(args('--log-format', 'json')),
    ];
    for (const screen of screens) {
      await screen.ended;
      expect(screen.text()).not.toMatch(/waiting \d+s/);
      expect(screen.text()).not.toContain('\u001b');
    }
  });
});

describe('--dry-run', () => {
  const kept = async (group: string) =>
    (await agent.kv.tree(`runlock/${group}/`))
      .filter(({ Key }) => !/\/\.(?:tail|last)$/.test(Key))
      .map(({ Key, Value }) => [Key, JSON.parse(Value) as unknown]);

  test('says what would run and where, runs nothing and leaves nothing', async () => {
    const { folder, lines } = stage();
    const args = ['--dry-run', '--', 'sh', '-c', `echo >>${folder}/started`, 'a b'];
    const { status, stdout, stderr } = await on('dry').exec('web01', ...args);
    expect({ status, stdout }).toEqual({ status: 0, stdout: '' });
    expect(stderr).toBe(
      `runlock: dry run: web01 would start now in slot 0 of dry: sh -c "echo >>${folder}/started" "a b"\n`,
    );
    expect(lines('started')).toEqual([]);
    expect(await kept('dry')).toEqual([]);
    // Of this group: a wait of another test that ended while it asked for a session may have one until its TTL is over.
    const sessions = (await agent.http('GET', '/v1/session/list')).json() as { Name: string }[];
    expect(sessions.filter(({ Name }) => Name === 'runlock dry')).toEqual([]);
  });

  test('never waits: busy is said at once', async () => {
    const { end: free } = await on('dry-busy').hold();
    const before = await kept('dry-busy');
    const result = await on('dry-busy').exec('web02', '--dry-run', '-w', '1h', '--', 'true');
    expect(result).toMatchObject({ status: 75, stdout: '' });
    expect(result.stderr).toMatch(/^runlock: busy: no slot available in dry-busy \(slot 0: web01 running sh/);
    expect(await kept('dry-busy')).toEqual(before);
    await free();
  });

  test('a claim that it would take back is as it was before', async () => {
    await on('dry-back').exec('web01', '--hold', '1h', '--', 'sh', '-c', 'exit 3');
    const before = await kept('dry-back');
    const { status, stderr } = await on('dry-back').exec('web01', '--dry-run', '--', 'true');
    expect(status).toBe(0);
    expect(stderr).toMatch(/would start now in slot 0 of dry-back, replacing its failed claim: true\n$/);
    expect(await kept('dry-back')).toEqual(before);
  });

  test('what would be wrong is wrong', async () => {
    expect((await on('dry').exec('web01', '--dry-run', '--', 'no-such-program')).status).toBe(127);
  });
});
