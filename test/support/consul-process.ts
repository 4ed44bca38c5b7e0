// The operating system's side of a test's Consul agent: its process, its folder, and the end of both.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Plan } from './consul-config.ts';

export interface AgentProcess {
  readonly pid: number;
  running(): boolean;
  signal(signal: NodeJS.Signals): void;
  /** SIGSTOP; when it returns, no thread of it runs any more. */
  pause(): void;
  /** Resolves once it is gone. */
  readonly ended: Promise<void>;
}

const prefix = 'runlock-consul-';
const processes = new Set<AgentProcess>();
const folders = new Set<string>();
let isWatching = false;

/** A folder that goes when this process does. Its name carries our pid, so that a later run can tell it is nobody's. */
export function createFolder(): string {
  if (!isWatching) {
    isWatching = true;
    removeOrphans();
    process.once('exit', killAll);
  }
  const folder = mkdtempSync(join(tmpdir(), `${prefix}${process.pid}-`));
  folders.add(folder);
  return folder;
}

export function removeFolder(folder: string): void {
  folders.delete(folder);
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
}

/** Starts the agent without waiting for anything but the start itself; its output goes to `agent.log`. */
export async function spawnAgent(binary: string, plan: Plan): Promise<AgentProcess> {
  const log = openSync(logFile(plan.folder), 'a');
  const args = ['agent', ...(plan.role === 'dev' ? ['-dev'] : []), '-config-file', configFile(plan.folder)];
  // `setpriv` has the kernel kill the agent when this process dies, in whichever way, and leaves the pid the
  // agent's own. A process group of its own keeps a terminal's Ctrl-C away.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', binary, ...args], {
    stdio: ['ignore', log, log],
    env: withoutConsul(process.env),
    detached: true,
  });
  closeSync(log);
  await once(child, 'spawn');
  child.unref();
  const self: AgentProcess = {
    pid: child.pid ?? 0,
    running: () => child.exitCode === null && child.signalCode === null,
    signal: (signal) => void child.kill(signal),
    pause: () => {
      if (child.kill('SIGSTOP')) waitUntilStopped(self);
    },
    ended: new Promise((resolve) => child.once('exit', () => resolve(void processes.delete(self)))),
  };
  processes.add(self);
  return self;
}

/** On another core a thread runs on for a moment, long enough to answer. */
function waitUntilStopped({ pid }: AgentProcess): void {
  const endMs = performance.now() + 10_000;
  while (!threadStates(pid).every((state) => /[TtZX]/.test(state))) {
    if (performance.now() > endMs) throw new Error(`Consul (pid ${pid}) does not stop`);
  }
}

/** Of those that are still there; proc(5), stat. */
function threadStates(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((thread) => stateOf(pid, thread));
  } catch {
    return [];
  }
}

function stateOf(pid: number, thread: string): string[] {
  try {
    return [/\) (\S)/.exec(readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8'))?.[1] ?? ''];
  } catch {
    return [];
  }
}

/** The environment without Consul's own variables: a developer's cluster is none of a test's business. */
export function withoutConsul(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith('CONSUL_')));
}

export function configFile(folder: string): string {
  return join(folder, 'agent.json');
}

export function logFile(folder: string): string {
  return join(folder, 'agent.log');
}

export function readLog(folder: string): string {
  return existsSync(logFile(folder)) ? readFileSync(logFile(folder), 'utf8') : '';
}

function killAll(): void {
  for (const one of processes) one.signal('SIGKILL');
  for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
}

/** Folders of processes that were killed before they could clean up. */
function removeOrphans(): void {
  for (const name of readdirSync(tmpdir())) {
    const owner = name.startsWith(prefix) ? name.slice(prefix.length).split('-')[0] : undefined;
    if (owner === undefined || existsSync(`/proc/${owner}`)) continue;
    try {
      rmSync(join(tmpdir(), name), { recursive: true, force: true });
    } catch {
      // Another user's: theirs to remove.
    }
  }
}
