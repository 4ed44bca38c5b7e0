// A run in a terminal that is stopped on purpose (Ctrl-Z) for longer than its guard waits for a word of runlock.
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { eventually, isAlive, untilGone } from '../support/processes.ts';
import { startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { startInTerminal } from '../support/terminal.ts';
import { LONG } from '../support/history/steps.ts';

const agent = useAgent();

/** The guard of a run that is not stopped on purpose ends the command after this time. */
const SILENCE_MS = 30_000;

const on = (group: string, hold: string, node: string) => [
  ...['exec', '-g', group, '--node', node, '--hold', hold, '--session-ttl', '10s', '--'],
];

/** `D`: a shell whose child was stopped before it became another program (vfork) can only follow it. */
const stateOf = (pid: number) => /^State:\s+(\S)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];

async function stopByHand(group: string, hold: string) {
  const { folder, pid, lines } = stage();
  const script = `echo $$ >${folder}/command.pid; until [ -e ${folder}/end ]; do sleep 0.1; done; exit 3`;
  const run = startInTerminal(agent, [...on(group, hold, 'web01'), 'sh', '-c', script], {
    shell: (command) => `${command}; echo is-stopped; read line; fg; echo ended-with $?`,
  });
  const command = await pid('command');
  run.type('\x1a');
  await run.shows(/is-stopped/);
  expect(['T', 'D']).toContain(stateOf(command));
  return { run, folder, lines, command };
}

test.concurrent(
  'Ctrl-Z of an interactive run, hold forever: it is there when it is continued',
  LONG,
  async () => {
    const stoppedMs = performance.now();
    const { run, folder, command } = await stopByHand('stopped-forever', 'forever');
    await eventually(() => {
      expect(['T', 'D']).toContain(stateOf(command));
      expect(performance.now() - stoppedMs).toBeGreaterThan(SILENCE_MS + 5_000);
    }, SILENCE_MS + 15_000);
    run.type('\n');
    await eventually(() => expect(stateOf(command)).not.toBe('T'));
    writeFileSync(`${folder}/end`, '');
    await run.shows(/ended-with 3/);
  },
);

test.concurrent(
  'a write in the background that the terminal forbids, hold forever: there when continued',
  LONG,
  async () => {
    const { folder, pid } = stage();
    const script = `echo $$ >${folder}/command.pid; until [ -e ${folder}/write ]; do sleep 0.1; done; echo over there; exit 3`;
    const run = startInTerminal(
      agent,
      ['exec', '-q', ...on('writes', 'forever', 'web01').slice(1), 'sh', '-c', script],
      {
        shell: (command) => `stty tostop; ${command} & read line; stty -tostop; fg; echo ended-with $?`,
      },
    );
    const command = await pid('command');
    writeFileSync(`${folder}/write`, '');
    await eventually(() => expect(['T', 'D']).toContain(stateOf(command)));
    const stoppedMs = performance.now();
    await eventually(() => {
      expect(['T', 'D']).toContain(stateOf(command));
      expect(performance.now() - stoppedMs).toBeGreaterThan(SILENCE_MS + 5_000);
    }, SILENCE_MS + 15_000);
    run.type('\n');
    await run.shows(/over there[^]*ended-with 3/);
  },
);

test.concurrent(
  'Ctrl-Z of an interactive run, hold none: its guard ends it before others may follow',
  LONG,
  async () => {
    const { run, folder, lines, command } = await stopByHand('stopped-none', 'none');
    await run.shows(/continue within \d+s \(fg or bg\), or the command is killed/);
    const look = `grep -qs '^State:.[^ZX]' /proc/${command}/status && echo alive >>${folder}/overlap; echo >>${folder}/started`;
    const next = startRunlock(agent, [...on('stopped-none', 'none', 'web02'), 'sh', '-c', look]);
    expect(isAlive(command)).toBe(true);
    expect(lines('started')).toEqual([]);
    await untilGone(command, 90_000);
    expect(lines('started')).toEqual([]);
    expect((await next.ended).status).toBe(0);
    expect(lines('started')).toHaveLength(1);
    expect(lines('overlap')).toEqual([]);
    run.type('\n');
    await run.shows(/ended-with 79/);
  },
);
