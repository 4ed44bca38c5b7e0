/** The command of a run: starts it so that both runtimes report its end exactly, passes on signals, ends its tree. */
import { spawn } from 'node:child_process';
import { statSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { pid as ownPid } from 'node:process';
import { RunlockError } from '../errors.ts';
import type { Clock } from '../platform/deps.ts';
import { killer, look, signalAll, withoutInner } from './kill-tree.ts';
import type { Kill } from './kill-tree.ts';
import type { RunCgroup } from './cgroup.ts';
import { stdioWith } from './descriptors.ts';
import type { FileLimit } from './contain.ts';
import { isRunnable, isText, startError } from './program.ts';
import type { Program } from './program.ts';
import { MARK_VARIABLE, markValue, followTree, groupOf, isStopped, startTime } from './process-tree.ts';
import { launchFailed } from './launcher.ts';
import type { Launcher } from './launcher.ts';
import { startSignalProbe } from './signal-probe.ts';
import type { SignalProbe } from './signal-probe.ts';
import type { Member, Tree } from './process-tree.ts';

export interface CommandOptions {
  /** The program as the user named it; it becomes the command's argv[0]. */
  readonly command: string;
  /** Where `findCommand` found it. */
  readonly file: string;
  readonly args: readonly string[];
  /** Set if the command must ignore signals: the program that is started first and then becomes the command. */
  readonly launcher?: Launcher;
  /** Where it starts; undefined: where runlock did. */
  readonly cwd?: string;
  /** The whole environment; only the mark of the run is added. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The secret of the run, which marks all of its processes. */
  readonly nonce: string;
  /** The cgroup that the command is born in; undefined if this host allows none. */
  readonly cgroup?: RunCgroup | undefined;
  readonly fileLimit?: FileLimit | undefined;
  /** The caller's descriptors above 2, which the command gets under the same numbers. */
  readonly inherited?: readonly number[];
  /**
   * Whether the command stays in runlock's process group, so that it gets the terminal's keys and can prompt there. If
   * not, the command gets a session of its own.
   */
  readonly shareTerminal: boolean;
  /** Takes stdout and stderr of the command; undefined: it has those of runlock. */
  readonly hearOutput?: ((bytes: Uint8Array) => void | Promise<void>) | undefined;
  /** Processes that are never part of the command, such as the guard. Runlock itself is always one. */
  readonly except?: () => readonly number[];
  /** Live runlocks on this host, and their guards. Any that the command started must end their own runs. */
  readonly inner?: () => readonly Pick<Member, 'pid' | 'startTime'>[];
  readonly clock: Clock;
}

/** A command while it runs, and what it leaves behind. */
export interface Supervised {
  readonly pid: number;
  /** Clock ticks since boot; with the pid it identifies the process uniquely. */
  readonly startTime: string;
  /** Whether the command was born in the run's cgroup. */
  readonly isContained: boolean;
  /** Resolves when the command itself has ended, even if other processes of its tree still run. Never rejects. */
  readonly ended: Promise<Ending>;
  /** Resolves when nobody can write output any more, and all of it has been heard. Never rejects. */
  readonly drained: Promise<unknown>;
  /** Passes on, once, a signal that runlock got, unless the terminal already sent it. Resolves when that is decided. */
  signal(signal: NodeJS.Signals): Promise<void>;
  /**
   * Ends the whole tree: `signal`, then KILL after `killAfterMs`. Keeps trying, and resolves when no process of the
   * tree is left. Never rejects.
   * May be called twice (a shorter limit wins), and after the command ended, to end what it left behind.
   */
  readonly kill: Kill;
  /** Whether the command itself is stopped, by Ctrl-Z say. */
  isStopped(): boolean;
  /** Continues the stopped processes of the tree. Never throws. */
  resume(): void;
  /** The live processes of the tree. Each look also remembers them, in case they hide their origin later. */
  remaining(): readonly Member[];
}

/**
 * Starts the command without a shell, on runlock's stdin, stdout and stderr unless its output is heard. Throws `not-found` or `not-executable`.
 */
export async function startCommand(options: CommandOptions): Promise<Supervised> {
  const { nonce, shareTerminal, clock, inner } = options;
  // Start the probe first, so that a failure here comes before the command exists.
  const probe = shareTerminal ? startSignalProbe(clock, { home: options.cgroup?.homeFile ?? '' }) : undefined;
  const [isInside] = await Promise.all([options.cgroup?.enter(), options.fileLimit?.enter()]);
  const cgroup = isInside === true ? options.cgroup : undefined;
  const spawned = spawnCommand(options);
  // Leave now: processes that are started from here on do not belong to the command.
  const left = options.cgroup?.leave();
  if ('code' in spawned) {
    probe?.stop();
    const { file, inherited = [], cwd } = options;
    if (cwd !== undefined && !statSync(cwd, { throwIfNoEntry: false })?.isDirectory())
      throw new RunlockError('not-executable', `cannot start in ${cwd}: the folder is gone; make it again`);
    throw startError(file, { code: await spawned.code, inherited });
  }
  const { pid, ended, drained } = spawned;
  void Promise.resolve(left).then(() => options.fileLimit?.started(pid));
  void ended.then(() => probe?.stop());
  // In this turn of the event loop even a command that ended at once is still there as a zombie, with its start time.
  const command = { pid, startTime: startTime(pid) ?? '' };
  const except = () => [ownPid, probe?.pid() ?? ownPid, ...(options.except?.() ?? [])];
  const tree = followTree({ nonce, command, except, ...(cgroup && { inside: () => cgroup.pids() }) });
  const group = shareTerminal ? undefined : pid;
  return {
    ...command,
    isContained: isInside === true,
    ended,
    drained,
    signal: passOn({ tree, group, ended, probe, inner, pid }),
    kill: killer({ tree, group, ended, clock, cgroup, inner }),
    isStopped: () => isStopped(command),
    resume: () => {
      signalAll(
        // State D: a process that waits for a stopped child (vfork) has a pending stop signal, which SIGCONT clears.
        (look(tree) ?? []).filter(({ state }) => state === 'T' || state === 'D'),
        'SIGCONT',
      );
    },
    remaining: () => tree.members(),
  };
}

function spawnCommand(options: CommandOptions): Spawned {
  const { command, file, args, launcher } = options;
  // Node and env(1) give any file whose format the kernel does not know to a shell, so refuse it here.
  if (!isRunnable(file)) return { code: Promise.resolve('ENOEXEC') };
  if (launcher) {
    const program = launcher(command, args);
    const launched = trySpawn(program, options);
    if ('pid' in launched && !launchFailed(launched.pid, { file: program.file, command })) return launched;
    // Try without the launcher: whatever kept it from becoming the command also stops runlock, which learns the reason.
  }
  const spawned = trySpawn({ file, args, argv0: command }, options);
  if (!('code' in spawned) || spawned.thrown !== 'ENOEXEC' || !isText(file)) return spawned;
  // Run a script without #! in a shell, as execvp(3) does, and Node through it.
  return trySpawn({ file: SHELL, args: [file, ...args], argv0: SHELL }, options);
}

const SHELL = '/bin/sh';

function trySpawn(
  program: Program,
  { env, nonce, shareTerminal, cwd, hearOutput, inherited = [] }: CommandOptions,
): Spawned {
  const stdio = stdioWith(inherited);
  return startProcess(program, {
    ...(cwd !== undefined && { cwd }),
    env: { ...env, [MARK_VARIABLE]: markValue(nonce, env[MARK_VARIABLE]) },
    stdio: hearOutput ? ['inherit', 'pipe', 'pipe', ...stdio.slice(3)] : stdio,
    hearOutput,
    detached: !shareTerminal,
  });
}

function passOn(options: {
  tree: Tree;
  group: number | undefined;
  ended: Promise<Ending>;
  probe: SignalProbe | undefined;
  inner: CommandOptions['inner'];
  /** The command's pid. */
  pid: number;
}): Supervised['signal'] {
  const { tree, group, probe, inner = () => [], pid } = options;
  let hasEnded = false;
  void options.ended.then(() => (hasEnded = true));
  return async (signal) => {
    const groupHad = probe !== undefined && (await probe.groupHad(signal));
    if (hasEnded) return;
    const members = withoutInner(tree.members(), inner());
    if (groupHad) {
      signalAll(inGroupOfItsOwn(members, pid), signal);
      return;
    }
    signalAll(group === undefined ? members : members.filter((m) => m.group === group), signal, group);
  };
}

/** timeout(1) and setsid(1) move to a process group of their own, which the terminal's signals do not reach. */
function inGroupOfItsOwn(members: readonly Member[], pid: number): readonly Member[] {
  const command = members.find((member) => member.pid === pid);
  if (command === undefined || command.group === groupOf(ownPid)) return [];
  return members.filter(({ group }) => group === command.group);
}

export type Ending =
  | { readonly kind: 'exited'; readonly code: number }
  /** The signal's number if the runtime has no name for it: a real-time signal. */
  | { readonly kind: 'signalled'; readonly signal: NodeJS.Signals | number };

interface StartOptions {
  readonly cwd?: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdio: ('inherit' | 'ignore' | 'pipe' | number)[];
  readonly detached: boolean;
  readonly hearOutput: CommandOptions['hearOutput'];
}

type Spawned =
  | { readonly pid: number; readonly ended: Promise<Ending>; readonly drained: Promise<unknown> }
  /** No process was started; errno says why. */
  | { readonly code: Promise<string | undefined>; readonly thrown?: string | undefined };

/** What Bun offers beside node:child_process (docs/adr/0015). */
interface Bun {
  spawn(
    command: readonly string[],
    options: {
      readonly argv0: string;
      readonly cwd?: string;
      readonly env: StartOptions['env'];
      readonly stdio: StartOptions['stdio'];
      readonly detached: boolean;
      readonly onExit: (
        process: unknown,
        code: number | null,
        signal: NodeJS.Signals | number | null,
      ) => void;
    },
  ): { readonly pid: number; readonly stdout: unknown; readonly stderr: unknown };
}

/** Never throws. */
function startProcess(program: Program, options: StartOptions): Spawned {
  const { Bun: bun } = globalThis as { readonly Bun?: Bun };
  try {
    return bun === undefined ? inNode(program, options) : inBun(bun, program, options);
  } catch (error) {
    // Some errors arrive as an event, others are thrown.
    const { code } = error as NodeJS.ErrnoException;
    return { code: Promise.resolve(code), thrown: code };
  }
}

/** Uses the spawn of Bun itself, because Bun's node:child_process reports an end by a real-time signal as success. */
function inBun(bun: Bun, { file, args, argv0 }: Program, options: StartOptions): Spawned {
  let end: (ending: Ending) => void = () => undefined;
  const ended = new Promise<Ending>((resolve) => (end = resolve));
  const { hearOutput, ...spawning } = options;
  const { pid, stdout, stderr } = bun.spawn([file, ...args], {
    ...spawning,
    argv0,
    onExit: (_, code, signal) => end(endingOf(code, signal)),
  });
  return { pid, ended, drained: hearAll([stdout, stderr], hearOutput) };
}

/** In Node a real-time signal looks like exit 0: the kernel's status is lost before JavaScript sees it. */
function inNode({ file, args, argv0 }: Program, options: StartOptions): Spawned {
  const { hearOutput, ...spawning } = options;
  const subprocess: ChildProcess = spawn(file, args, { ...spawning, argv0, env: { ...options.env } });
  const failed = new Promise<NodeJS.ErrnoException>((resolve) => subprocess.on('error', resolve));
  const { pid } = subprocess;
  if (pid === undefined) return { code: failed.then(({ code }) => code) };
  const ended = new Promise<Ending>((resolve) => {
    subprocess.once('exit', (code, signal) => resolve(endingOf(code, signal)));
  });
  return { pid, ended, drained: hearAll([subprocess.stdout, subprocess.stderr], hearOutput) };
}

/** `streams`: a stream of either runtime each. */
function hearAll(streams: readonly unknown[], hear: CommandOptions['hearOutput']): Promise<unknown> {
  if (!hear) return Promise.resolve();
  const hearOne = async (stream: AsyncIterable<Uint8Array>) => {
    for await (const bytes of stream) await hear(bytes);
  };
  return Promise.allSettled(streams.map((stream) => hearOne(stream as AsyncIterable<Uint8Array>)));
}

const endingOf = (code: number | null, signal: NodeJS.Signals | number | null): Ending =>
  signal === null ? { kind: 'exited', code: code ?? 1 } : { kind: 'signalled', signal };
