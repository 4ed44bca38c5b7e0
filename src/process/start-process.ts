/** Starting a process so that its end is known exactly, in both runtimes. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';

export type Ending =
  | { readonly kind: 'exited'; readonly code: number }
  /** The signal's number where the runtime has no name for it: a real-time signal. */
  | { readonly kind: 'signalled'; readonly signal: NodeJS.Signals | number };

/** What is given to spawn. */
export interface Program {
  readonly file: string;
  readonly argv0: string;
  readonly args: readonly string[];
}

export interface StartOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdio: ('inherit' | 'ignore' | number)[];
  readonly detached: boolean;
}

export type Spawned =
  | { readonly pid: number; readonly ended: Promise<Ending> }
  /** There is none, and errno says why. */
  | { readonly code: Promise<string | undefined>; readonly thrown?: string | undefined };

/** What Bun offers beside node:child_process (docs/adr/0015). */
interface Bun {
  spawn(
    command: readonly string[],
    options: {
      readonly argv0: string;
      readonly env: StartOptions['env'];
      readonly stdio: StartOptions['stdio'];
      readonly detached: boolean;
      readonly onExit: (
        process: unknown,
        code: number | null,
        signal: NodeJS.Signals | number | null,
      ) => void;
    },
  ): { readonly pid: number };
}

/** Never throws. */
export function startProcess(program: Program, options: StartOptions): Spawned {
  const { Bun: bun } = globalThis as { readonly Bun?: Bun };
  try {
    return bun === undefined ? inNode(program, options) : inBun(bun, program, options);
  } catch (error) {
    // Some reasons come as an event, and others are thrown.
    const { code } = error as NodeJS.ErrnoException;
    return { code: Promise.resolve(code), thrown: code };
  }
}

/** Its node:child_process tells of an end by a real-time signal as of a good one. */
function inBun(bun: Bun, { file, args, argv0 }: Program, options: StartOptions): Spawned {
  let end: (ending: Ending) => void = () => undefined;
  const ended = new Promise<Ending>((resolve) => (end = resolve));
  const { pid } = bun.spawn([file, ...args], {
    ...options,
    argv0,
    onExit: (_, code, signal) => end(endingOf(code, signal)),
  });
  return { pid, ended };
}

/** Here nothing tells a real-time signal from exit 0: what the kernel said is gone when JavaScript hears of it. */
function inNode({ file, args, argv0 }: Program, { env, stdio, detached }: StartOptions): Spawned {
  const subprocess: ChildProcess = spawn(file, args, { argv0, env: { ...env }, stdio, detached });
  const failed = new Promise<NodeJS.ErrnoException>((resolve) => subprocess.on('error', resolve));
  const { pid } = subprocess;
  if (pid === undefined) return { code: failed.then(({ code }) => code) };
  const ended = new Promise<Ending>((resolve) => {
    subprocess.once('exit', (code, signal) => resolve(endingOf(code, signal)));
  });
  return { pid, ended };
}

const endingOf = (code: number | null, signal: NodeJS.Signals | number | null): Ending =>
  signal === null ? { kind: 'exited', code: code ?? 1 } : { kind: 'signalled', signal };
