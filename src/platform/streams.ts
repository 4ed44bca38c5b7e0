/**
 * Runlock's own stdout and stderr. The command shares their open file descriptions, so never set O_NONBLOCK on them, as
 * Node's process.stdout and process.stderr do. A reader that stalls must not stop runlock either.
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

/** A stalled reader delays the end of runlock no longer than this. */
const LAST_WORDS_MS = 5_000;

export interface OutputStream {
  readonly isTTY: boolean;
  /** Width of the terminal; undefined: unknown, or there is no terminal. */
  readonly columns: number | undefined;
  readonly rows: number | undefined;
  /** Why written text did not arrive, such as a full disk. A reader that has left is not a fault. */
  readonly fault: NodeJS.ErrnoException | undefined;
  /** Whether text is waiting for a stalled reader. */
  readonly isBehind: boolean;
  on(event: 'resize' | 'error', listener: () => void): void;
  /**
   * Never blocks, unless the stream is a file. `written`: called when the text has left this process, or was dropped.
   */
  write(text: string | Uint8Array, written?: () => void): void;
  /** Prepares for the first write, which may need a helper process that should not be started later. */
  prepare(): void;
  /** Resolves when all text is written, or after `limitMs` (5 s). Nothing may be written afterwards. */
  end(limitMs?: number): Promise<void>;
}

export interface OutputOptions {
  readonly fd: number;
  /** Whether the runtime waits at exit for writes in other threads; with a stalled reader that would be forever. */
  readonly exitJoinsThreads: boolean;
  /** How many bytes to keep at most for a stalled reader. */
  readonly limit?: number;
  /** Called with the number of dropped writes, once the reader goes on. */
  readonly onLost?: (count: number) => void;
  /** Whether the runtime opens /dev/null (close-on-exec) in place of a closed stream. */
  readonly opensClosed?: boolean;
  /** Wraps each write to a terminal. */
  readonly stoppable?: <T>(write: () => T) => T;
  /** Calls `listener` when a terminal's size changes. */
  readonly onResize?: (listener: () => void) => void;
}

interface Pending {
  readonly bytes: Uint8Array;
  readonly written: () => void;
}

/** One way to write bytes. */
interface Way {
  /** Returns how many bytes were taken; 0: none for now. Throws or rejects with the system's error. */
  put(bytes: Uint8Array): number | Promise<number>;
  /** Resolves when all bytes have reached the stream. */
  end?(): Promise<unknown>;
  /** Whether the bytes will never reach the stream this way. */
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
    // A reader that has left, or a terminal that has hung up, is not a fault.
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
      const bytes = typeof text === 'string' ? Buffer.from(text) : text;
      if (queued + bytes.length > limit) lost += 1;
      if (bytes.length === 0 || queued + bytes.length > limit) {
        written();
        return;
      }
      queue.push({ bytes, written });
      queued += bytes.length;
      // Try at once, since this may be the last text of this process.
      if (retry) tryAgain();
      else pump();
    },
    prepare() {
      try {
        way ??= findWay(options, gone);
      } catch {
        // The first write will report why.
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

  /** Writes directly as a last resort, even though that may block. */
  function writeLast(): void {
    try {
      for (const { bytes } of queue.splice(0)) direct(fd).put(bytes);
    } catch {
      // There is no reader any more.
    }
  }
}

/** ENXIO: no process has the pipe open for reading. */
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
 * Recognizes files, pipes, /dev/null and closed descriptors without node:tty, which takes milliseconds to load.
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
 * Whether the runtime opened the descriptor itself: an inherited one has no O_CLOEXEC (proc(5), fdinfo). Node.js later
 * sets O_CLOEXEC on all descriptors, so there this check would not work.
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
 * Opens a description of runlock's own for the same pipe or terminal. Undefined: that is not possible.
 * @throws ENXIO: the pipe has no reader.
 */
function reopen(fd: number): number | undefined {
  try {
    return openSync(`/proc/self/fd/${fd}`, OWN);
  } catch (error) {
    if (isReaderGone(error as NodeJS.ErrnoException)) throw error;
  }
  // After su(1) the terminal belongs to another user, but any process may open its controlling terminal as /dev/tty.
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

/** Writes to a file, which never blocks, or to a non-blocking description. */
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
  // If this user may start no more threads (ulimit -u), work for a thread is neither done nor refused. Probe for that;
  // a stalled reader blocks only one thread, so the probe still gets through.
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

/**
 * Lets a helper process wait for the reader. It is not part of the run: it ends after it has written all of its input.
 */
function throughHelper(fd: number, gone: (readerLeft: boolean) => void): Way {
  const helper: ChildProcess = spawn('/bin/cat', [], {
    cwd: '/',
    env: {},
    detached: true,
    stdio: ['pipe', fd, 'ignore'],
  });
  helper.on('error', () => gone(false));
  const { stdin } = helper;
  // Without a helper a stalled reader blocks runlock too, but its output arrives.
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
