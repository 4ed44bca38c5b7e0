/**
 * Runlock's own stdout and stderr. The command shares their open file descriptions, so O_NONBLOCK must never be set on
 * them, as Node's process.stdout and process.stderr do; and a reader who stalls must not stop runlock.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import {
  access,
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  write as writeInThread,
  writeSync,
} from 'node:fs';
import { getBuiltinModule } from 'node:process';
import type { WriteStream } from 'node:tty';

/** A reader who has stalled must not keep runlock from its end for longer. */
const LAST_WORDS_MS = 5_000;

export interface OutputStream {
  readonly isTTY: boolean;
  /** Of the terminal; undefined: unknown, or there is none. */
  readonly columns: number | undefined;
  readonly rows: number | undefined;
  /** Why something that was written did not arrive: a full disk. A reader who has left is no fault. */
  readonly fault: NodeJS.ErrnoException | undefined;
  /** Whether text waits for a reader who has stalled. */
  readonly isBehind: boolean;
  on(event: 'resize' | 'error', listener: () => void): void;
  /** Never blocks, unless it is a file. `written`: the text is out of this process, or never will be. */
  write(text: string, written?: () => void): void;
  /** Gets ready what the first write would need: a process may have to be started, and later may be a bad time. */
  prepare(): void;
  /** Resolves when all is out, or after `limitMs` (5 s). Nothing may be written afterwards. */
  end(limitMs?: number): Promise<void>;
}

export interface OutputOptions {
  readonly fd: number;
  /** Whether an exit waits for what other threads write: for ever, if the reader has stalled. */
  readonly exitJoinsThreads: boolean;
  /** The most bytes that are kept for a reader who has stalled. */
  readonly limit?: number;
  /** Hears how many writes were not kept, once the reader goes on. */
  readonly onLost?: (count: number) => void;
  /** Whether the runtime has opened /dev/null in place of a stream that was closed, as one that no other program inherits. */
  readonly opensClosed?: boolean;
  /** Around each write to a terminal. */
  readonly stoppable?: <T>(write: () => T) => T;
  /** Calls `listener` when a terminal's size changes. */
  readonly onResize?: (listener: () => void) => void;
}

interface Pending {
  readonly bytes: Uint8Array;
  readonly written: () => void;
}

/** One way to put bytes out. */
interface Way {
  /** How many of them were taken; 0: none for now. Throws or rejects with the system's error. */
  put(bytes: Uint8Array): number | Promise<number>;
  /** Resolves when what was put is where it should go. */
  end?(): Promise<unknown>;
  /** Whether what was put will never get there by itself. */
  isDead?(): boolean;
}

const FIRST_PAUSE_MS = 1;
const LAST_PAUSE_MS = 20;

export function createStream(options: OutputOptions): OutputStream {
  const { fd, limit = Infinity, onLost, onResize } = options;
  const errorListeners: (() => void)[] = [];
  const queue: Pending[] = [];
  let queued = 0;
  let lost = 0;
  let isWaiting = false;
  let retry: NodeJS.Timeout | undefined;
  let pauseMs = FIRST_PAUSE_MS;
  let way: Way | undefined;
  let fault: NodeJS.ErrnoException | undefined;
  let onIdle: () => void = () => undefined;
  const tellError = () => errorListeners.forEach((listener) => listener());
  const gone = (readerLeft: boolean) => {
    way = undefined;
    if (readerLeft) tellError();
  };

  function pump(): void {
    for (let next = queue[0]; next !== undefined && !isWaiting; next = queue[0]) {
      try {
        way ??= findWay(options, gone);
        const taken = way.put(next.bytes);
        if (typeof taken === 'number') take(next, taken);
        else waitFor(next, taken);
      } catch (error) {
        drop(next, error as NodeJS.ErrnoException);
      }
    }
    if (queue.length > 0) return;
    onIdle();
    const count = lost;
    lost = 0;
    if (count > 0) onLost?.(count);
  }

  function waitFor(next: Pending, taken: Promise<number>): void {
    isWaiting = true;
    void taken
      .then(
        (count) => {
          isWaiting = false;
          take(next, count);
        },
        (error: unknown) => {
          isWaiting = false;
          drop(next, error as NodeJS.ErrnoException);
        },
      )
      .then(pump);
  }

  function take(next: Pending, count: number): void {
    if (count === 0) {
      isWaiting = true;
      retry = setTimeout(tryAgain, pauseMs);
      pauseMs = Math.min(2 * pauseMs, LAST_PAUSE_MS);
      return;
    }
    pauseMs = FIRST_PAUSE_MS;
    queued -= count;
    if (count < next.bytes.length) {
      queue[0] = { ...next, bytes: next.bytes.subarray(count) };
      return;
    }
    queue.shift();
    next.written();
  }

  function tryAgain(): void {
    clearTimeout(retry);
    retry = undefined;
    isWaiting = false;
    pump();
  }

  function drop(next: Pending, error: NodeJS.ErrnoException): void {
    queue.shift();
    queued -= next.bytes.length;
    // A reader who has left, or a terminal that has hung up, misses nothing.
    if (!isReaderGone(error) && !isTerminal(fd)) fault ??= error;
    tellError();
    next.written();
  }

  const drained = () =>
    new Promise<void>((resolve) => {
      if (queue.length === 0) resolve();
      else onIdle = resolve;
    });

  return {
    get isTTY() {
      return isTerminal(fd);
    },
    get columns() {
      return sizeOf(fd)?.columns;
    },
    get rows() {
      return sizeOf(fd)?.rows;
    },
    get fault() {
      return fault;
    },
    get isBehind() {
      return queue.length > 0;
    },
    on(event, listener) {
      if (event === 'error') errorListeners.push(listener);
      else onResize?.(listener);
    },
    write(text, written = () => undefined) {
      const bytes = Buffer.from(text);
      if (queued + bytes.length > limit) lost += 1;
      if (bytes.length === 0 || queued + bytes.length > limit) {
        written();
        return;
      }
      queue.push({ bytes, written });
      queued += bytes.length;
      // It may be the last that this process says.
      if (retry) tryAgain();
      else pump();
    },
    prepare() {
      try {
        way ??= findWay(options, gone);
      } catch {
        // The first write will say why.
      }
    },
    async end(limitMs = LAST_WORDS_MS) {
      if (queue.length === 0 && !way?.end) return;
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, limitMs)));
      await Promise.race([late, drained().then(() => way?.end?.())]);
      clearTimeout(timer);
      if (way?.isDead?.() === true) writeLast();
    },
  };

  /** It may block, but is the only way that is left. */
  function writeLast(): void {
    try {
      for (const { bytes } of queue.splice(0)) direct(fd).put(bytes);
    } catch {
      // Nobody reads it.
    }
  }
}

/** ENXIO: nobody has a pipe open for reading. */
const isReaderGone = ({ code }: NodeJS.ErrnoException) => code === 'EPIPE' || code === 'ENXIO';

function findWay(
  { fd, exitJoinsThreads, opensClosed, stoppable }: OutputOptions,
  gone: (readerLeft: boolean) => void,
): Way {
  const kind = kindOf(fd);
  if (kind === 'closed' || (opensClosed && isOwn(fd)))
    throw Object.assign(new Error('it is closed'), { code: 'EBADF' });
  if (kind === 'file') return direct(fd);
  const own = kind === 'socket' ? undefined : reopen(fd);
  if (own !== undefined) {
    const { put } = direct(own);
    return isTerminal(fd) && stoppable ? { put: (bytes) => stoppable(() => put(bytes)) } : { put };
  }
  return exitJoinsThreads ? throughHelper(fd, gone) : throughThread(fd);
}

/**
 * To load node:tty takes milliseconds, so a file, a pipe and /dev/null are told apart without it; so are all closed ones.
 */
export function isTerminal(fd: number): boolean {
  try {
    const stat = fstatSync(fd);
    return stat.isCharacterDevice() && majorOf(stat.rdev) !== MEMORY_DEVICES && tty().isatty(fd);
  } catch {
    return false;
  }
}

const tty = () => getBuiltinModule('node:tty');

/** /dev/null, zero and full (admin-guide/devices.txt of the kernel's documentation). */
const MEMORY_DEVICES = 1;
/** makedev(3). */
const majorOf = (device: number) => (device >> 8) & 0xfff;

function kindOf(fd: number): 'file' | 'waits' | 'socket' | 'closed' {
  try {
    const stat = fstatSync(fd);
    if (stat.isSocket()) return 'socket';
    return stat.isFIFO() || isTerminal(fd) ? 'waits' : 'file';
  } catch {
    return 'closed';
  }
}

/**
 * What a program is given survived its start, so it has no O_CLOEXEC (proc(5), fdinfo). Node.js sets that for all of them later,
 * and then nothing tells.
 */
function isOwn(fd: number): boolean {
  try {
    const [, flags = ''] = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? [];
    return (Number.parseInt(flags, 8) & O_CLOEXEC) !== 0;
  } catch {
    return false;
  }
}

/** open(2); Node.js has no name for it. */
const O_CLOEXEC = 0o2000000;

const OWN = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY;

/**
 * A description of runlock's own for the same pipe or terminal. Undefined: there can be none.
 * @throws ENXIO: the pipe has no reader.
 */
function reopen(fd: number): number | undefined {
  try {
    return openSync(`/proc/self/fd/${fd}`, OWN);
  } catch (error) {
    if (isReaderGone(error as NodeJS.ErrnoException)) throw error;
  }
  // After su(1) the terminal is another user's, but everybody may open the own one by this name.
  try {
    return isControlling(fd) ? openSync('/dev/tty', OWN) : undefined;
  } catch {
    return undefined;
  }
}

/** proc(5), stat: tty_nr. */
function isControlling(fd: number): boolean {
  const [, , , , terminal] = readFileSync('/proc/self/stat', 'utf8').replace(/.*\) /s, '').split(' ');
  return fstatSync(fd).rdev === Number(terminal);
}

function sizeOf(fd: number): { readonly columns: number; readonly rows: number } | undefined {
  if (!isTerminal(fd)) return undefined;
  try {
    const own = reopen(fd);
    if (own === undefined) return undefined;
    const { columns, rows } = closing(own);
    return { columns, rows };
  } catch {
    return undefined;
  }
}

function closing(own: number): Pick<WriteStream, 'columns' | 'rows'> {
  let terminal: WriteStream;
  try {
    terminal = new (tty().WriteStream)(own);
  } catch (error) {
    closeSync(own);
    throw error;
  }
  const { columns, rows } = terminal;
  terminal.destroy();
  return { columns, rows };
}

/** Into a file, which never waits, or a description that says when it would. */
const direct = (fd: number): { put: (bytes: Uint8Array) => number } => ({
  put(bytes) {
    try {
      return writeSync(fd, bytes);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return 0;
      throw error;
    }
  },
});

function throughThread(fd: number): Way {
  // Where this user may have no more threads (ulimit -u), nothing that is meant for one is ever done, nor refused. A
  // reader who has stalled keeps but one of them.
  let isDead = true;
  access('/', () => {
    isDead = false;
  });
  return {
    isDead: () => isDead,
    put: (bytes) =>
      new Promise((resolve, reject) => {
        writeInThread(fd, bytes, (error, count) => {
          if (!error) resolve(count);
          else if (error.code === 'EAGAIN') resolve(0);
          else reject(error);
        });
      }),
  };
}

/** Another process waits for the reader. It is no part of the run: it ends with its input, after it has written all. */
function throughHelper(fd: number, gone: (readerLeft: boolean) => void): Way {
  const helper: ChildProcess = spawn('/bin/cat', [], {
    cwd: '/',
    env: {},
    detached: true,
    stdio: ['pipe', fd, 'ignore'],
  });
  helper.on('error', () => gone(false));
  const { stdin } = helper;
  // Then a reader who stalls stops runlock as well, but what it says arrives.
  if (helper.pid === undefined || stdin === null) return direct(fd);
  stdin.on('error', () => undefined);
  const ended = new Promise<void>((resolve) => {
    helper.on('exit', (_, signal) => {
      gone(signal === 'SIGPIPE');
      resolve();
    });
  });
  return {
    put: (bytes) =>
      new Promise((resolve, reject) => {
        stdin.write(bytes, (error) => (error ? reject(error) : resolve(bytes.length)));
      }),
    end: () => {
      stdin.end();
      return ended;
    },
  };
}
