/** Processes that the benchmark starts: followed by pid, measured, and ended with it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Process {
  readonly pid: number;
  /** Rejects when it ends with anything but 0; its message carries what it said on stderr. */
  readonly ended: Promise<void>;
  /** The first line of its stdout. */
  readonly line: Promise<string>;
  /** The first line of its stdout that matches, once it is there; '' where it ended without one. */
  readonly says: (wanted: RegExp) => Promise<string>;
}

const living = new Map<number, Promise<unknown>>();
let isOver = false;

/** Starts it with nothing but `env`, in a session of its own, so that no terminal makes a difference. */
export function start([file = '', ...args]: readonly string[], env: NodeJS.ProcessEnv): Process {
  if (isOver) throw new Error('the benchmark is being ended');
  const child = spawn(file, args, { env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  const pid = child.pid ?? 0;
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  const says = (wanted: RegExp) =>
    new Promise<string>((resolve) => {
      const look = () => {
        const found = stdout
          .split('\n')
          .slice(0, -1)
          .find((line) => wanted.test(line));
        if (found !== undefined) resolve(found);
      };
      child.stdout.on('data', look);
      child.stdout.on('end', () => resolve(''));
      look();
      if (child.stdout.readableEnded) resolve('');
    });
  const line = says(/^/);
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const ended = once(child, 'close').then(([code, by]: (number | NodeJS.Signals | null)[]) => {
    living.delete(pid);
    const status = code ?? by;
    if (status !== 0) throw new Error(`${file} ${args.join(' ')} ended with ${status}: ${stderr}`);
  });
  ended.catch(() => undefined);
  if (pid !== 0) living.set(pid, ended);
  return { pid, ended, line, says };
}

/** Runs it to its end: the first line of its output. */
export async function firstLine(command: readonly string[], env: NodeJS.ProcessEnv): Promise<string> {
  const { line, ended } = start(command, env);
  await ended;
  return line;
}

const POLITE_MS = 5_000;

/** From now on every start throws. */
export function startNoMore(): void {
  isOver = true;
}

/** Ends all that still runs: TERM, so that each ends its own command, then KILL. */
export async function endProcesses(): Promise<void> {
  const all = [...living];
  const kill = (signal: NodeJS.Signals) => {
    for (const [pid] of all) if (living.has(pid)) killGroup(pid, signal);
  };
  kill('SIGTERM');
  const gone = Promise.allSettled(all.map(([, ended]) => ended));
  const late = new AbortController();
  await Promise.race([gone, sleep(POLITE_MS, undefined, late)]);
  late.abort();
  kill('SIGKILL');
  await gone;
}

/** Each leads a process group, which ends with it: a program and what measures it, say. */
function killGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // It has just ended.
  }
}

export interface Memory {
  /** Resident: what the process alone on its machine takes. */
  readonly rssKb: number;
  /** Its share, where processes of the same program share pages. */
  readonly pssKb: number;
}

/** Of the process and all of its descendants. */
export function memoryOf(pid: number): Memory {
  const children = childrenNow();
  const tree = [pid];
  for (const one of tree) tree.push(...(children.get(one) ?? []));
  const rollups = tree.map((one) => readFileSync(`/proc/${one}/smaps_rollup`, 'utf8'));
  const sum = (field: string) =>
    rollups.reduce((total, text) => total + Number(new RegExp(`^${field}: +(\\d+)`, 'm').exec(text)?.[1]), 0);
  return { rssKb: sum('Rss'), pssKb: sum('Pss') };
}

/** By parent. */
function childrenNow(): Map<number, number[]> {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    const parent = parentOf(name);
    if (parent !== undefined) children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
  }
  return children;
}

function parentOf(pid: string): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    // It has just ended.
    return undefined;
  }
}
