// A pseudo-terminal with the built program in it, as `script` (util-linux) makes one.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { onTestFinished } from 'vitest';
import { startTime } from '../../src/process/process-tree.ts';
import type { Agent } from './consul.ts';
import { end, eventually } from './processes.ts';
import { NO_CONFIG, RUNLOCK } from './program.ts';
import { turnsOfGroups } from './turns.ts';

export interface TerminalRun {
  /** Exit status of runlock. */
  readonly ended: Promise<number>;
  /** All that the terminal has shown, as it was sent: lines end in CR LF. */
  screen(): string;
  /** Types; a newline is the Enter key, \x03 is Ctrl-C. */
  type(text: string): void;
  /** Resolves when the terminal has shown it. */
  shows(pattern: RegExp): Promise<void>;
}

export interface TerminalOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Shell text after the command, such as a redirection. */
  readonly after?: string;
  /** What a shell with job control makes of the command, instead of being replaced by it. */
  readonly shell?: (command: string) => string;
}

const word = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

/** Starts `runlock <args>` as the only program of a new terminal. */
export function startInTerminal(
  agent: Agent,
  args: readonly string[],
  { env = {}, after = '', shell }: TerminalOptions = {},
): TerminalRun {
  const { PATH = '', HOME = '' } = process.env;
  const command = `${[RUNLOCK, ...args].map(word).join(' ')} ${after}`;
  const turns = turnsOfGroups(args);
  const line = shell ? `set -m; ${shell(command)}` : `exec ${command}`;
  const child = spawn('script', ['--quiet', '--return', '--flush', '--command', line, '/dev/null'], {
    env: { PATH, HOME, TERM: 'xterm', SHELL: '/bin/sh', ...NO_CONFIG, ...turns, ...agent.env, ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let screen = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (screen += text));
  child.stdin.on('error', () => undefined);
  const pid = child.pid ?? 0;
  const born = startTime(pid);
  onTestFinished(() => {
    // The terminal hangs up then, which ends runlock and its command.
    if (startTime(pid) === born) end(pid);
  });
  return {
    ended: once(child, 'close').then(([status]) => Number(status)),
    screen: () => screen,
    type: (text) => void child.stdin.write(text),
    shows: (pattern) =>
      eventually(() => {
        if (!pattern.test(screen)) throw new Error(`the terminal has not shown ${pattern}, but: ${screen}`);
      }, 20_000),
  };
}
