// A run in a terminal: Ctrl-C that the command goes on after, Ctrl-Z and back again.
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { eventually, isAlive } from '../support/processes.ts';
import { groupOf } from '../support/group.ts';
import { stage } from '../support/stage.ts';
import { startInTerminal } from '../support/terminal.ts';
import type { TerminalRun } from '../support/terminal.ts';

const agent = useAgent();

const on = (group: string, ...rest: string[]) => groupOf(agent, group).words('web01', ...rest);

/** Runs until `<folder>/end` is there; its pid and that of runlock are in the folder. */
const untilTold = (folder: string, first = ':') => [
  ...['--', 'sh', '-c'],
  `${first}; echo $PPID >${folder}/runlock.pid; echo $$ >${folder}/command.pid; until [ -e ${folder}/end ]; do sleep 0.02; done; exit 3`,
];

/** `D`: a shell whose child was stopped before it became another program (vfork) can only follow it. */
const stateOf = (pid: number) => /^State:\s+(\S)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];

describe('Ctrl-C', () => {
  test('that the command ignores is said to have been passed on, and the next one ends it', async () => {
    const { folder, pid } = stage();
    const run = startInTerminal(agent, on('again', ...untilTold(folder, "trap '' INT")));
    const command = await pid('command');
    run.type('\x03');
    await run.shows(
      /forwarded Ctrl-C to sh, which is still running; press Ctrl-C again within 3s to kill it/,
    );
    expect(isAlive(command)).toBe(true);
    run.type('\x03');
    expect(await run.ended).toBe(143);
    expect(isAlive(command)).toBe(false);
  });

  test('again: KILL follows TERM after --kill-after where that is ignored too', async () => {
    const { folder, pid } = stage();
    const run = startInTerminal(
      agent,
      on('kill', '--kill-after', '300ms', ...untilTold(folder, "trap '' INT TERM")),
    );
    await pid('command');
    run.type('\x03');
    await run.shows(/press Ctrl-C again/);
    run.type('\x03');
    expect(await run.ended).toBe(137);
  });

  test('that ends the command is nothing to speak of', async () => {
    const { folder, pid } = stage();
    const run = startInTerminal(agent, on('ends', ...untilTold(folder)));
    await pid('command');
    run.type('\x03');
    expect(await run.ended).toBe(130);
    expect(run.screen()).not.toContain('Ctrl-C');
  });
});

describe('Ctrl-Z', () => {
  /** Under a shell with job control, which says when it has the terminal again, and goes on with `then` after a line. */
  const inShell = (group: string, folder: string, then: string, first?: string) =>
    startInTerminal(agent, on(group, ...untilTold(folder, first)), {
      shell: (command) => `${command}; echo is-stopped; read line; ${then}; echo ended-with $?`,
    });

  const stopped = async (run: TerminalRun, pids: readonly number[]) => {
    await run.shows(/is-stopped/);
    for (const pid of pids) expect(['T', 'D']).toContain(stateOf(pid));
  };

  test.each([
    ['fg', 'fg'],
    ['bg', 'bg; wait %1'],
  ])('stops command and runlock, and %s goes on with both', async (name, then) => {
    const { folder, pid } = stage();
    const run = inShell(`stop-${name}`, folder, then);
    const [runlock, command] = await Promise.all([pid('runlock'), pid('command')]);
    run.type('\x1a');
    await stopped(run, [runlock, command]);
    run.type('\n');
    await eventually(() => expect(stateOf(command)).not.toBe('T'));
    writeFileSync(`${folder}/end`, '');
    await run.shows(/ended-with 3/);
  });

  test('twice', async () => {
    const { folder, pid } = stage();
    const run = inShell('twice', folder, 'fg; echo is-again; read line; fg');
    const [runlock, command] = await Promise.all([pid('runlock'), pid('command')]);
    run.type('\x1a');
    await stopped(run, [runlock, command]);
    run.type('\n');
    await eventually(() => expect(stateOf(command)).not.toBe('T'));
    await eventually(() => expect(stateOf(runlock)).not.toBe('T'));
    run.type('\x1a');
    await run.shows(/is-again/);
    for (const each of [runlock, command]) expect(['T', 'D']).toContain(stateOf(each));
    run.type('\n');
    await eventually(() => expect(stateOf(command)).not.toBe('T'));
    writeFileSync(`${folder}/end`, '');
    await run.shows(/ended-with 3/);
  });

  test('that runlock alone gets stops the command too', async () => {
    const { folder, pid } = stage();
    const run = inShell('alone', folder, 'fg');
    const [runlock, command] = await Promise.all([pid('runlock'), pid('command')]);
    process.kill(runlock, 'SIGTSTP');
    await stopped(run, [runlock, command]);
    // And whoever continues runlock alone continues the command.
    process.kill(runlock, 'SIGCONT');
    await eventually(() => expect(stateOf(command)).not.toBe('T'));
    run.type('\n');
    writeFileSync(`${folder}/end`, '');
    await run.shows(/ended-with 3/);
  });

  test('that the command ignores stops nothing', async () => {
    const { folder, pid } = stage();
    const run = inShell('ignored', folder, 'true', "trap '' TSTP");
    const [runlock] = await Promise.all([pid('runlock'), pid('command')]);
    run.type('\x1a');
    // Both are asked for one after the other: when this one has been passed on, that one has been decided.
    run.type('\x03');
    await run.shows(/is-stopped/);
    expect(isAlive(runlock)).toBe(false);
    run.type('\n');
    await run.shows(/ended-with 0/);
  });

  test('a read in the background stops both, and fg goes on', async () => {
    const { folder, pid } = stage();
    const reads = `read word; echo read $word`;
    const run = startInTerminal(agent, on('reads', ...untilTold(folder, `trap : WINCH; ${reads}`)), {
      shell: (command) =>
        `${command} & sleep 0.1; echo $! >${folder}/job.pid; read line; fg; echo ended-with $?`,
    });
    const job = await pid('job');
    await eventually(() => expect(['T', 'D']).toContain(stateOf(job)));
    run.type('\n');
    await eventually(() => expect(stateOf(job)).not.toBe('T'));
    run.type('hello\n');
    await run.shows(/read hello/);
    writeFileSync(`${folder}/end`, '');
    await run.shows(/ended-with 3/);
  });

  test('a write in the background that the terminal forbids stops both, and fg goes on', async () => {
    const { folder, pid } = stage();
    const script = `until [ -e ${folder}/write ]; do sleep 0.02; done; echo over there`;
    const hidden = `echo $PPID >${folder}/early.pid; ${script}`;
    const run = startInTerminal(agent, on('writes', '-q', ...untilTold(folder, hidden)), {
      shell: (command) =>
        `stty tostop; ${command} & echo $! >${folder}/job.pid; read line; stty -tostop; fg; echo ended-with $?`,
    });
    const [job] = [await pid('job'), await pid('early')];
    writeFileSync(`${folder}/write`, '');
    await eventually(() => expect(['T', 'D']).toContain(stateOf(job)));
    run.type('\n');
    await run.shows(/over there/);
    writeFileSync(`${folder}/end`, '');
    await run.shows(/ended-with 3/);
  });

  test('what runlock itself says there stops it, as it would any program', async () => {
    const { folder, pid } = stage();
    const run = startInTerminal(agent, on('says', ...untilTold(folder)), {
      shell: (command) =>
        `${command}; stty tostop; bg; echo in-background; read line; stty -tostop; fg; echo ended-with $?`,
    });
    await pid('command');
    const job = await pid('runlock');
    run.type('\x1a');
    await run.shows(/in-background/);
    await eventually(() => expect(stateOf(job)).not.toBe('T'));
    const session = (await groupOf(agent, 'says').lockedBy()) ?? '';
    await agent.http('PUT', `/v1/session/destroy/${session}`);
    // It has taken its lock back, and means to say so.
    await eventually(() => expect(stateOf(job)).toBe('T'), 20_000);
    run.type('\n');
    await run.shows(/reacquired the lock of says/);
    writeFileSync(`${folder}/end`, '');
    await run.shows(/ended-with 3/);
  });
});
