// What runlock writes and what its command writes go to the same place, and neither is in the other's way.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { isNonBlocking, pipe } from '../support/pipe.ts';
import { eventually, guardOf } from '../support/processes.ts';
import { RUNLOCK, clean } from '../support/program.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { startInTerminal } from '../support/terminal.ts';

const agent = useAgent();

/** Starts runlock with its stdout and stderr on descriptors of this process. */
function startOn({ out, err }: { out: number | 'ignore'; err: number | 'ignore' }, args: readonly string[]) {
  const child = spawn(RUNLOCK, args, {
    env: { ...clean, ...agent.env },
    detached: true,
    stdio: ['ignore', out, err],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  return { child, ended: once(child, 'close').then(([status]) => status as number | null) };
}

const exec = (group: string, ...more: string[]) => groupOf(agent, group).words('web01', ...more);
const stateOf = (pid: number) => {
  try {
    return /^State:\s+(\w)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  } catch {
    return undefined;
  }
};
/** A shell's words that note the flags of the command's stderr; and whether O_NONBLOCK was never among them. */
const NOTE_FLAGS = 'grep ^flags: /proc/self/fdinfo/2';
const blocks = (notes: readonly string[]) =>
  notes.map((note) => (Number.parseInt(note.replace(/\D+/, ''), 8) & constants.O_NONBLOCK) === 0);

/** Has runlock say something in the middle of a run: that it took its lock back. */
async function saidByRunlock(group: string, drain: () => string): Promise<string> {
  const lock = await agent.kv.get(`runlock/${group}/.slot/0/lock`);
  await agent.http('PUT', `/v1/session/destroy/${lock?.Session ?? ''}`);
  let text = '';
  await eventually(() => {
    text += drain();
    expect(text).toMatch(/^runlock: reacquired the lock of/m);
  }, 20_000);
  return text;
}

describe('a pipe that the command shares', () => {
  test('all of 60,000 lines arrive beside what runlock says meanwhile, though the reader is slow', async () => {
    const { folder, lines, pid } = stage();
    const { fd, drain } = pipe();
    const script = `echo >${folder}/started; until [ -e ${folder}/go ]; do sleep 0.05; done
      ${NOTE_FLAGS} >${folder}/flags; echo $$ >${folder}/seq.pid; exec seq 60000 >&2`;
    const { ended } = startOn({ out: fd, err: fd }, exec('slow', '--', 'sh', '-c', script));
    await eventually(() => expect(lines('started')).toHaveLength(1));
    let text = await saidByRunlock('slow', drain);
    writeFileSync(`${folder}/go`, '');
    const seq = await pid('seq');
    // The pipe is full, or the command has given up.
    await eventually(() => expect(['S', 'Z', undefined]).toContain(stateOf(seq)));
    let isOver = false;
    void ended.finally(() => (isOver = true));
    await eventually(() => {
      text += drain();
      expect(isOver).toBe(true);
    }, 30_000);
    text += drain();
    expect(await ended).toBe(0);
    expect(text.split('\n').filter((line) => /^\d+$/.test(line))).toHaveLength(60_000);
    expect(blocks(lines('flags'))).toEqual([true]);
    expect(isNonBlocking(fd)).toBe(false);
  });

  test('stays blocking when a helper process of runlock ends during the run', async () => {
    const { folder, pid } = stage();
    const { fd } = pipe();
    const script = `echo $$ >${folder}/command.pid; until [ -e ${folder}/go ]; do sleep 0.05; done`;
    const { child, ended } = startOn({ out: fd, err: fd }, exec('helper', '-q', '--', 'sh', '-c', script));
    await pid('command');
    const runlock = child.pid ?? 0;
    const guard = guardOf(runlock);
    process.kill(guard, 'SIGKILL');
    await eventually(() => expect(guardOf(runlock)).not.toBe(guard));
    expect(isNonBlocking(fd)).toBe(false);
    writeFileSync(`${folder}/go`, '');
    expect(await ended).toBe(0);
  });

  test.each([
    [['status']],
    [['status', 'none']],
    [['--help']],
    [['exec', '--help']],
    [['frobnicate']],
    [['doctor']],
    [['config']],
  ])('stays blocking after %j', async (args) => {
    const { fd, drain } = pipe();
    await startOn({ out: fd, err: fd }, args).ended;
    expect(drain()).not.toBe('');
    expect(isNonBlocking(fd)).toBe(false);
  });

  test('a report is whole, however slowly it is read', async () => {
    const { fd, drain, fill } = pipe();
    fill();
    const { ended } = startOn({ out: fd, err: 'ignore' }, ['completion', 'zsh']);
    let text = '';
    let isOver = false;
    void ended.finally(() => (isOver = true));
    await eventually(() => {
      text += drain();
      expect(isOver).toBe(true);
    });
    text += drain();
    expect(text.replace(/^\.+/, '')).toBe((await runlock(agent, ['completion', 'zsh'])).stdout);
  });

  test('a reader of stderr who has stalled keeps the end waiting for seconds at most', async () => {
    const { fd, fill } = pipe();
    fill();
    const { ended } = startOn({ out: 'ignore', err: fd }, exec('stalled', '-v', '--', 'sh', '-c', 'exit 3'));
    expect(await ended).toBe(3);
  });
});

describe('a socket that the command shares, as journald gives it', () => {
  test('stays blocking, and every line arrives, in order', async () => {
    const { folder, lines } = stage();
    const script = `${NOTE_FLAGS} >${folder}/flags; seq 20000 >&2; ${NOTE_FLAGS} >>${folder}/flags; exit 3`;
    const { status, stderr } = await runlock(agent, exec('socket', '-v', '--', 'sh', '-c', script));
    expect(status).toBe(3);
    expect(blocks(lines('flags'))).toEqual([true, true]);
    expect(stderr.split('\n').filter((line) => /^\d+$/.test(line))).toHaveLength(20_000);
    expect(stderr).toMatch(/^runlock: web01 acquired slot 0 of socket[^]*^20000$[^]*^runlock: sh exited 3/m);
  });

  test('a reader who has stalled keeps neither the run nor its end waiting', async () => {
    const { folder } = stage();
    const child = spawn(
      RUNLOCK,
      exec('socket-stalled', '-v', '--', 'sh', '-c', `seq 100000 >&2 & echo >${folder}/ran; kill $!; exit 3`),
      {
        env: { ...clean, ...agent.env },
        detached: true,
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    onTestFinished(() => void child.kill('SIGKILL'));
    child.stderr.pause();
    const [status] = (await once(child, 'exit')) as [number | null];
    expect(status).toBe(3);
    expect(existsSync(`${folder}/ran`)).toBe(true);
  });

  test('nothing that runlock started stays behind', async () => {
    const run = startRunlock(agent, exec('socket-left', '-v', '--', 'true'));
    const children = new Set<string>();
    const { pid } = run;
    await eventually(() => {
      try {
        for (const child of readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' '))
          if (child !== '') children.add(child);
      } catch {
        // It is over.
      }
      expect(existsSync(`/proc/${pid}`)).toBe(false);
    });
    await run.ended;
    for (const child of children) expect(['Z', undefined]).toContain(stateOf(Number(child)));
  });
});

describe('a file that the command shares', () => {
  test('has the lines of both in order', async () => {
    const { folder } = stage();
    const file = `${folder}/log`;
    writeFileSync(file, '');
    const run = spawn(
      'sh',
      [
        '-c',
        `exec "$0" "$@" >${file} 2>&1`,
        RUNLOCK,
        ...exec('file', '-v', '--', 'sh', '-c', 'echo one; echo two >&2'),
      ],
      {
        env: { ...clean, ...agent.env },
        stdio: 'ignore',
      },
    );
    await once(run, 'close');
    const text = readFileSync(file, 'utf8');
    expect(text).toMatch(
      /^(?:runlock: .*\n)*runlock: web01 acquired slot 0 of file.*\n(?:runlock: .*\n)*one\ntwo\n(?:runlock: .*\n)*runlock: sh exited 0.*\n/,
    );
  });
});

describe('a terminal that the command shares', () => {
  test('stays blocking', async () => {
    const { folder, lines } = stage();
    const script = `${NOTE_FLAGS} >${folder}/flags; echo over`;
    const run = startInTerminal(agent, exec('tty', '-v', '--', 'sh', '-c', script));
    expect(await run.ended).toBe(0);
    expect(run.screen()).toMatch(/acquired slot 0 of tty[^]*over[^]*sh exited 0/);
    expect(blocks(lines('flags'))).toEqual([true]);
  });
});
