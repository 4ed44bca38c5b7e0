// `status --watch` in a terminal, and as lines of JSON.
import { execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { end, eventually } from '../support/processes.ts';
import { RUNLOCK, isRunlock } from '../support/program.ts';
import { startProxy } from '../support/proxy.ts';
import { STEPS } from '../support/proxy-steps.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { startInTerminal } from '../support/terminal.ts';

const agent = useAgent({ durable: true });

const ENTER = '\x1b[?1049h\x1b[?25l';
const LEAVE = '\x1b[?25h\x1b[?1049l';
const WIPE = '\x1b[2J';
/** As a regular expression finds it. */
const quoted = (text: string) => text.replaceAll(/[[\]?]/g, '\\$&');

/** `status --watch` in a terminal, with what it has drawn last. */
function watch(
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
  shell?: (command: string) => string,
) {
  const mark = randomUUID();
  const run = startInTerminal(agent, ['status', '--watch', ...args], {
    env: { ...env, WATCH_MARK: mark },
    ...(shell && { shell }),
  });
  // eslint-disable-next-line no-control-regex -- without colours, and lines as they were written
  const plain = (text: string) => text.replaceAll(/\x1b\[(?:\d+m|K|J)/g, '').replaceAll(/\r+\n/g, '\n');
  const frames = () => run.screen().split('\x1b[H').slice(1).map(plain);
  const frame = () => frames().at(-1) ?? '';
  return {
    ...run,
    frames,
    frame,
    /** Resolves when the last frame is such. */
    until: (pattern: RegExp) =>
      eventually(() => {
        if (!pattern.test(frame())) throw new Error(`not ${pattern}, but: ${JSON.stringify(frame())}`);
      }, 20_000),
    pid: () => pidWith(mark),
  };
}

/** proc(5): T is stopped. */
const stateOf = (pid: number) => / ([A-Z]) [^)]*$/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1];

/** Of the runlock that was started with this mark in its environment. */
function pidWith(mark: string): number {
  const found = readdirSync('/proc').find((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      return isRunlock(words) && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(mark);
    } catch {
      return false;
    }
  });
  if (found === undefined) throw new Error('no such runlock');
  return Number(found);
}

const claim = (fields: object = {}) =>
  JSON.stringify({
    ...{ v: 1, node: 'web01', state: 'failed', run: 'r', since: new Date().toISOString(), exitCode: 1 },
    ...{ command: 'chef-client', hold: 'forever', pid: 1, startTime: '1', bootId: 'b', ...fields },
  });

async function holder(group: string) {
  const { folder, pid } = stage();
  const script = `echo $$ >${folder}/command.pid; while ! [ -e ${folder}/end ]; do sleep 0.05; done`;
  const run = startRunlock(agent, ['exec', '-g', group, '--node', 'web01', '--', 'sh', '-c', script]);
  await pid('command');
  return async () => {
    writeFileSync(`${folder}/end`, '');
    expect((await run.ended).status).toBe(0);
  };
}

describe('on a terminal', () => {
  test('it draws anew on a grant and on a release; Ctrl-C leaves the terminal as it was, exit 0', async () => {
    const seen = watch(['-g', 'grant/web']);
    await seen.until(/group grant\/web has not been used yet/);
    const free = await holder('grant/web');
    await seen.until(/slot 0: web01 has been running sh for \d+s/);
    await free();
    await seen.until(/idle: nothing running or waiting/);
    seen.type('\x03');
    expect(await seen.ended).toBe(0);
    const screen = seen.screen();
    expect(screen.startsWith(ENTER)).toBe(true);
    expect(screen.endsWith(LEAVE)).toBe(true);
    expect(screen.split(ENTER)).toHaveLength(2);
    expect(screen.split(LEAVE)).toHaveLength(2);
  });

  test('Ctrl-Z leaves the terminal as it was, bg leaves it to the shell, and fg draws anew', async () => {
    await agent.kv.put('runlock/stopped/.slot/0/owner', claim());
    const seen = watch(['stopped'], {}, (command) =>
      [command, 'echo is-stopped', 'bg', 'read line', 'echo is-read', 'fg', 'echo ended-with $?'].join('; '),
    );
    await seen.until(/web01 failed/);
    seen.type('\x1a');
    await seen.shows(/is-stopped/);
    const pid = seen.pid();
    // Continued in the background it stops again, before it draws.
    await eventually(() => expect(stateOf(pid)).toBe('T'));
    expect(seen.screen()).toMatch(new RegExp(`${quoted(LEAVE)}[^]*is-stopped`));
    seen.type('\n');
    await seen.shows(/is-read/);
    await agent.kv.put('runlock/stopped/.slot/0/owner', claim({ node: 'web09' }));
    await seen.until(/web09 failed/);
    seen.type('\x03');
    await seen.shows(/ended-with 0/);
    const drawn = [ENTER, LEAVE, 'is-stopped', 'is-read', `${ENTER}${WIPE}`, LEAVE, 'ended-with 0'];
    expect(seen.screen()).toMatch(new RegExp(drawn.map(quoted).join('[^]*')));
    expect(seen.screen().split(ENTER)).toHaveLength(3);
  });

  test('stopped and continued from elsewhere it draws anew', async () => {
    const seen = watch(['elsewhere'], {}, (command) => `${command}; echo is-stopped; read line; fg`);
    await seen.until(/has not been used/);
    process.kill(seen.pid(), 'SIGSTOP');
    await seen.shows(/is-stopped/);
    seen.type('\n');
    await seen.shows(new RegExp(['is-stopped', WIPE].map(quoted).join('[^]*')));
    seen.type('\x03');
    expect(await seen.ended).toBe(0);
    expect(seen.screen().endsWith(LEAVE)).toBe(true);
  });

  test.each([
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)('after %s too, exit %i', async (signal, status) => {
    const seen = watch(['left']);
    await seen.until(/left/);
    process.kill(seen.pid(), signal);
    expect(await seen.ended).toBe(status);
    expect(seen.screen().endsWith(LEAVE)).toBe(true);
  });

  test('when Consul refuses it leaves the terminal as it was, says why, exit 77', async () => {
    await using proxy = await startProxy(agent);
    proxy.rule({ match: STEPS.watch, do: { status: 403, body: 'Permission denied' } });
    const seen = watch([], proxy.env);
    expect(await seen.ended).toBe(77);
    expect(seen.screen()).toContain(ENTER);
    const after = seen.screen().split(LEAVE)[1] ?? '';
    expect(after).toContain('the token needs the rule: key_prefix "runlock/" { policy = "read" }');
  });

  test('where there is no Consul it says so and never draws, exit 69', async () => {
    const seen = watch([], { CONSUL_HTTP_ADDR: '127.0.0.1:1' });
    expect(await seen.ended).toBe(69);
    expect(seen.screen()).not.toContain('\x1b[?1049h');
  });

  test('it says that Consul does not answer and since when, and goes on when it is back', async () => {
    await agent.kv.put('runlock/back/.slot/0/owner', claim());
    const seen = watch(['back']);
    await seen.until(/web01 failed/);
    await agent.stop();
    await seen.until(/Consul has not answered for \d+s \(since \d{4}-.*Z\)[^]*web01 failed/);
    await agent.restart();
    // Nothing has changed in Consul, and that is seen at once.
    await seen.until(/q to quit\n\nback \(blocked\)\n/);
    await agent.kv.put('runlock/back/.slot/0/owner', claim({ node: 'web09' }));
    await seen.until(/web09 failed/);
    seen.type('\x03');
    expect(await seen.ended).toBe(0);
  });

  test('while nothing changes the ages tick and Consul is asked nothing but its blocking queries', async () => {
    await using proxy = await startProxy(agent);
    await agent.kv.put('runlock/quiet/.slot/0/owner', claim({ since: new Date().toISOString() }));
    const all = watch(['--prefix', 'runlock'], proxy.env);
    const named = watch(['quiet'], proxy.env);
    for (const seen of [all, named]) {
      const ages = () => seen.frames().flatMap((one) => /web01 failed (\d+)s ago/.exec(one)?.[1] ?? []);
      await eventually(() => expect(new Set(ages()).size).toBeGreaterThan(2), 20_000);
    }
    const paths = proxy.requests.map(({ path }) =>
      decodeURIComponent(path)
        .replace(/\?.*index=.*/, ' waits')
        .replace(/\?.*/, ''),
    );
    const both = (key: string) => [`/v1/kv/${key}`, `/v1/kv/${key} waits`];
    expect(paths.sort()).toEqual(
      [...both('runlock/'), ...both('runlock/quiet/'), ...both('runlock/.freeze')].sort(),
    );
  });

  test('a freeze above a named group is seen as well', async () => {
    const seen = watch(['ice/web']);
    await seen.until(/has not been used/);
    await groupOf(agent, 'ice').freeze('anna', 'release day');
    await seen.until(/was frozen \d+s ago by anna \(release day\)/);
    await agent.kv.delete('runlock/ice/.freeze');
    await seen.until(/has not been used/);
  });

  test('of a storm of changes at most ten a second are drawn or read, and the last one is', async () => {
    await using proxy = await startProxy(agent);
    const seen = watch(['--prefix', 'storm'], proxy.env);
    await seen.until(/nothing is stored/);
    const startedMs = performance.now();
    const before = { frames: seen.frames().length, requests: proxy.requests.length };
    for (let i = 0; i < 500; i += 1)
      await agent.kv.put('storm/web/.slot/0/owner', claim({ command: `command-${i}` }));
    await seen.until(/command-499/);
    const most = (performance.now() - startedMs) / 100 + 3;
    expect(seen.frames().length - before.frames).toBeLessThan(most);
    expect(proxy.requests.length - before.requests).toBeLessThan(most);
  });

  test('it is cut at the bottom, says how much is missing, and is drawn anew when the size changes', async () => {
    for (let i = 10; i < 30; i += 1) await agent.kv.put(`tall/g${i}/.slot/0/owner`, claim());
    const seen = watch(['--prefix', 'tall']);
    await seen.until(/… \d+ more lines$/);
    const tty = readlinkSync(`/proc/${seen.pid()}/fd/1`);
    for (const [rows, missing] of [
      [12, 4 + 20 * 7 - 1 - 11],
      [200, undefined],
      [9, 4 + 20 * 7 - 1 - 8],
    ] as const) {
      execFileSync('stty', ['-F', tty, 'rows', String(rows), 'cols', '150']);
      await seen.until(
        missing === undefined ? /g29[^]*release g29[^…]*$/ : new RegExp(`… ${missing} more lines$`),
      );
    }
  });
});

test('--blocked and --all hold for --watch too', async () => {
  await agent.kv.put('some/bad/.slot/0/owner', claim());
  for (let i = 10; i < 60; i += 1)
    await agent.kv.put(`some/idle${i}/.tail`, JSON.stringify({ v: 1, session: 's' }));
  const blocked = watch(['--prefix', 'some', '--blocked']);
  await blocked.until(/groups: 1 blocked, .* 50 idle, [^]*\n\nbad \(blocked\)\n[^]*forever\n$/);
  expect(blocked.frame()).not.toContain('idle1');
  const all = watch(['--prefix', 'some', '--all']);
  await all.until(/\nidle10 \(idle\)\nidle11 \(idle\)\n/);
  await agent.kv.delete('some/bad/.slot/0/owner');
  await blocked.until(/groups: 0 blocked, [^]*\n\nno group is blocked\n$/);
});

describe('keys', () => {
  /** Between what the terminal's settings are before and afterwards. */
  const between = (command: string) =>
    [`a=$(stty -g)`, command, 'echo ended-with $?', '[ "$a" = "$(stty -g)" ] && echo as-before'].join('; ');
  const settings = (pid: number) =>
    execFileSync('stty', ['-F', readlinkSync(`/proc/${pid}/fd/1`), '-a'], { encoding: 'utf8' });
  const key = (text: string) => (seen: ReturnType<typeof watch>) => {
    // Another key is none. Not before a signal: that could overtake it, and the shell's terminal would show it.
    seen.type('x\x1b[A\n');
    seen.type(text);
  };
  const signal = (name: NodeJS.Signals) => (seen: ReturnType<typeof watch>) =>
    void process.kill(seen.pid(), name);

  test.each<[string, (seen: ReturnType<typeof watch>) => void, number]>([
    ['q', key('q'), 0],
    ['Q', key('Q'), 0],
    ['Ctrl-C', key('\x03'), 0],
    ['SIGTERM', signal('SIGTERM'), 143],
    ['SIGHUP', signal('SIGHUP'), 129],
    ['SIGQUIT', signal('SIGQUIT'), 131],
  ])('%s ends it, and the terminal’s settings are as before', async (_, leave, status) => {
    const seen = watch(['keys'], {}, between);
    await seen.until(/q to quit\n\nkeys\n/);
    // One key is enough, and is not shown; Ctrl-C and Ctrl-Z are still signals, to the whole job.
    expect(settings(seen.pid())).toMatch(/\bisig -icanon .* -echo /);
    leave(seen);
    await seen.shows(new RegExp(`ended-with ${status}\\r+\\nas-before`));
    expect(seen.screen()).toMatch(new RegExp(`${quoted(LEAVE)}ended-with`));
  });

  test('killed, it leaves the terminal’s settings and screen as before all the same', async () => {
    // dash, which is the shell here, restores nothing itself.
    const seen = watch(['keys'], {}, (command) =>
      [
        ...['a=$(stty -g)', command, 'echo ended-with $?'],
        ...[
          'until [ "$a" = "$(stty -g)" ]; do sleep 0.05; done',
          'echo as-before',
          'read line',
          'echo "got $line"',
        ],
      ].join('; '),
    );
    await seen.until(/q to quit\n\nkeys\n/);
    process.kill(seen.pid(), 'SIGKILL');
    await seen.shows(/ended-with 137\r+\n/);
    await seen.shows(/as-before/);
    await seen.shows(new RegExp(quoted(LEAVE)));
    seen.type('typed\n');
    // Echoed, and read as a line.
    await seen.shows(/typed\r+\ngot typed/);
  });

  test('a fault ends it, and the terminal’s settings are as before', async () => {
    await using proxy = await startProxy(agent);
    proxy.rule({ match: STEPS.watch, do: { status: 403, body: 'Permission denied' } });
    const seen = watch([], proxy.env, between);
    await seen.shows(/ended-with 77\r+\nas-before/);
  });

  test('Ctrl-Z gives the terminal’s settings back, and after fg q still ends it', async () => {
    const seen = watch(['keys'], {}, (command) =>
      [
        ...['a=$(stty -g)', command, '[ "$a" = "$(stty -g)" ] && echo stopped-as-before', 'read line'],
        ...['fg', 'echo ended-with $?', '[ "$a" = "$(stty -g)" ] && echo as-before'],
      ].join('; '),
    );
    await seen.until(/q to quit/);
    seen.type('\x1a');
    await seen.shows(/stopped-as-before/);
    const drawn = seen.frames().length;
    seen.type('\n');
    await eventually(() => expect(seen.frames().length).toBeGreaterThan(drawn), 20_000);
    expect(settings(seen.pid())).toMatch(/\bisig -icanon /);
    seen.type('q');
    await seen.shows(/ended-with 0\r+\nas-before/);
  });

  test('where stdin is no terminal q is no key, and the terminal is left alone', async () => {
    const seen = watch(['keys'], {}, (command) => between(`${command} </dev/null`));
    await seen.until(/Ctrl-C to quit/);
    expect(settings(seen.pid())).toMatch(/\bisig icanon /);
    const drawn = seen.frames().length;
    seen.type('q\n');
    await eventually(() => expect(seen.frames().length).toBeGreaterThan(drawn + 1), 20_000);
    seen.type('\x03');
    await seen.shows(/ended-with 0\r+\nas-before/);
  });
});

test('on a terminal that can draw nothing it is refused in these words, exit 64', async () => {
  const run = startInTerminal(agent, ['status', '--watch'], { env: { TERM: 'dumb' } });
  expect(await run.ended).toBe(64);
  expect(run.screen()).toMatch(/needs a terminal, but TERM=dumb can't draw; use --json/);
});

describe('without a terminal', () => {
  test('it is refused, exit 64', async () => {
    const result = await runlock(agent, ['status', '--watch']);
    expect(result).toMatchObject({ status: 64, stdout: '' });
    expect(result.stderr).toMatch(
      /^runlock: .*needs a terminal, but stdout is not a terminal; use --json .*\n$/,
    );
  });

  test('--json prints a document a line on each change, SIGINT ends it with 0, SIGTERM with 143', async () => {
    const group = 'lines';
    const endings = { SIGINT: 0, SIGTERM: 143 } as const;
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      const run = startRunlock(agent, ['status', '--watch', '--json', group]);
      const docs = () =>
        run
          .stdout()
          .trimEnd()
          .split('\n')
          .filter(Boolean)
          .map((line) => JSON.parse(line) as object);
      await eventually(() => expect(docs()).toHaveLength(1));
      await agent.kv.put(`runlock/${group}/.slot/0/owner`, claim({ node: signal }));
      await eventually(() => expect(docs()).toHaveLength(2));
      expect(docs()[1]).toMatchObject({
        v: 1,
        groups: [{ group, slots: [{ state: 'failed', node: signal }] }],
      });
      // Later than the shortest time between two lines, so that the signal itself could bring one more.
      await sleep(300);
      run.signal(signal);
      expect(await run.ended).toMatchObject({ status: endings[signal], stderr: '' });
      expect(docs()).toHaveLength(2);
    }
  });

  test('when the reader of the lines has left it ends with the next one', async () => {
    const { folder } = stage();
    const line = `"$0" status --watch --json gone | head -n 1 >${folder}/first; echo done`;
    const child = spawn('sh', ['-c', line, RUNLOCK], {
      env: { ...process.env, ...agent.env },
      stdio: 'pipe',
    });
    onTestFinished(() => end(child.pid ?? 0));
    const closed = once(child, 'close');
    await eventually(() => expect(readFileSync(`${folder}/first`, 'utf8')).toContain('"groups"'));
    await agent.kv.put('runlock/gone/.slot/0/owner', claim());
    expect(await closed).toEqual([0, null]);
  });
});
