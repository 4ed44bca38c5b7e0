/**
 * The output of a command in a file of its host, for runs that nobody sits in front of. The command writes
 * into pipes that are always read, so neither a slow nor a full disk stops it: what can't be written is left out, and
 * the file says how much. Loaded for such runs only.
 */
import { constants } from 'node:fs';
import { open, statfs, unlink } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { RunlockError, reasonOf } from '../errors.ts';
import { lastLine } from '../text/last-line.ts';

/** Of one run: so many bytes from its beginning, and between one and two times `tail` from its end. */
export interface LogLimits {
  readonly head: number;
  readonly tail: number;
  /** What may wait for the disk; more is left out. */
  readonly waiting: number;
  /** The part of the disk that has to stay free. */
  readonly free: number;
}

const MIB = 1_048_576;
const LIMITS: LogLimits = { head: 8 * MIB, tail: 4 * MIB, waiting: 2 * MIB, free: 0.05 };
/** The free space is looked at before so many bytes are written. */
const LOOK_BYTES = MIB / 4;
/** How long a command waits for the disk, in all. */
const PATIENCE_MS = 1_000;
/** How long the end of a run waits for its output. */
const END_MS = 5_000;

export interface LogOutput {
  /** Takes what the command has written. The promise says when to come again; after a second in all there is none. */
  readonly hear: (bytes: Uint8Array) => void | Promise<void>;
  /** Writes what is left, within seconds, and closes the file. `drained`: all has been heard. Never rejects. */
  readonly end: (drained: Promise<unknown>) => Promise<void>;
}

export interface LogOptions {
  readonly file: string;
  /** The effective user id. */
  readonly uid: number;
  /** Called once: from now on output is left out, or was. */
  readonly lost: (why: string) => void;
  /** Called with each last line, at once: see `LastLine`. */
  readonly onLine?: ((line: string) => void) | undefined;
  readonly limits?: Partial<LogLimits>;
}

/** @throws RunlockError `config`: the file can't be opened, or others could have made it. */
export async function openLogOutput({ file, uid, lost, onLine, limits }: LogOptions): Promise<LogOutput> {
  const most = { ...LIMITS, ...limits };
  const store = await openStore(file, uid, most);
  const line = lastLine();
  let waiting: Uint8Array[] = [];
  let waitingBytes = 0;
  let leftOut = 0;
  let fault: string | undefined;
  let patienceMs = PATIENCE_MS;
  let writing: Promise<void> | undefined;
  let ended: Promise<void> | undefined;

  function lose(why: string): void {
    if (fault === undefined) lost(why);
    fault ??= why;
  }

  async function write(): Promise<void> {
    while (waiting.length > 0 && fault === undefined) {
      const bytes = Buffer.concat(waiting);
      waiting = [];
      waitingBytes = 0;
      const gap = leftOut;
      leftOut = 0;
      try {
        if (gap > 0) await store.write(note(tooSlow(gap)));
        await store.write(bytes);
      } catch (error) {
        lose(reasonOf(error));
      }
    }
  }

  function hear(bytes: Uint8Array): void | Promise<void> {
    line.hear(bytes);
    onLine?.(line.read());
    if (fault !== undefined) return;
    waiting.push(bytes);
    waitingBytes += bytes.length;
    // The newest is of most use.
    while (waitingBytes > most.waiting) {
      const oldest = waiting.shift()?.length ?? waitingBytes;
      waitingBytes -= oldest;
      leftOut += oldest;
    }
    writing ??= write().finally(() => (writing = undefined));
    if (waitingBytes > most.waiting / 2 && patienceMs > 0) return letWrite(writing);
  }

  /** A command that is quicker than a good disk waits for it, a second in all, so that nothing has to be left out. */
  async function letWrite(written: Promise<void>): Promise<void> {
    const startedMs = performance.now();
    await Promise.race([written, new Promise((resolve) => setTimeout(resolve, patienceMs).unref())]);
    patienceMs -= performance.now() - startedMs;
  }

  return {
    hear,
    end: (drained) => (ended ??= endAfter(drained)),
  };

  async function endAfter(drained: Promise<unknown>): Promise<void> {
    const over = new Promise<void>((resolve) => setTimeout(resolve, END_MS).unref());
    await Promise.race([drained, over]);
    const finish = async () => {
      await writing;
      await store.end();
    };
    await Promise.race([finish().catch((error: unknown) => lose(reasonOf(error))), over]);
  }
}

const tooSlow = (bytes: number) => `${bytes} bytes are missing here: the disk was too slow`;

const note = (text: string) => Buffer.from(`\n[runlock: ${text}]\n`);

interface Store {
  write(bytes: Buffer): Promise<void>;
  /** Puts the beginning and the end into one file. */
  end(): Promise<void>;
}

/**
 * The beginning goes into the file itself. Once that is full, the rest goes into two more files in turns, of which the
 * older one is begun anew; if runlock is killed, they stay beside it.
 */
async function openStore(file: string, uid: number, most: LogLimits): Promise<Store> {
  const head = await openHead(file, uid);
  const tails: { readonly path: string; readonly handle: FileHandle; bytes: number }[] = [];
  let headBytes = 0;
  let begun = 0;
  let cutBytes = 0;
  let unlooked = Infinity;

  async function checkSpace(bytes: number): Promise<void> {
    unlooked += bytes;
    if (unlooked < LOOK_BYTES) return;
    unlooked = 0;
    const { bavail, blocks } = await statfs(dirname(file));
    if (bavail < blocks * most.free)
      throw new Error(`less than ${most.free * 100} % of the disk of ${file} is free`);
  }

  async function nextTail(): Promise<void> {
    const path = `${file}.${(begun % 2) + 1}`;
    const old = tails.length === 2 ? tails.shift() : undefined;
    if (old) {
      cutBytes += old.bytes;
      await old.handle.close();
    }
    await unlink(path).catch(() => undefined);
    begun += 1;
    tails.push({ path, handle: await create(path), bytes: 0 });
  }

  async function writeTail(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      if ((tails.at(-1)?.bytes ?? most.tail) >= most.tail) await nextTail();
      const tail = tails.at(-1);
      if (!tail) return;
      const part = bytes.subarray(at, at + most.tail - tail.bytes);
      await tail.handle.writeFile(part);
      tail.bytes += part.length;
      at += part.length;
    }
  }

  async function write(bytes: Buffer): Promise<void> {
    await checkSpace(bytes.length);
    const part = bytes.subarray(0, most.head - headBytes);
    if (part.length > 0) await head.writeFile(part);
    headBytes += part.length;
    if (part.length < bytes.length) await writeTail(bytes.subarray(part.length));
  }

  return {
    write,
    end: async () => {
      if (cutBytes > 0) await head.writeFile(note(`${cutBytes} bytes are left out here`));
      for (const { path, handle } of tails) {
        await handle.close();
        await head.writeFile(await readAll(path));
        await unlink(path);
      }
      await head.close();
    },
  };
}

async function readAll(path: string): Promise<Buffer> {
  const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    return await handle.readFile();
  } finally {
    await handle.close();
  }
}

const OTHERS_WRITE = 0o022;

/** What is there already stays: its writer is the one that starts the run. */
async function openHead(file: string, uid: number): Promise<FileHandle> {
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants;
  const refuse = (why: string, cause?: unknown) =>
    new RunlockError('config', `the log ${file} can't be written: ${why}`, { cause });
  const handle = await open(file, O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_WRONLY, 0o640).catch(
    (error: unknown) => {
      throw refuse(reasonOf(error), error);
    },
  );
  const stats = await handle.stat();
  if (stats.isFile() && stats.uid === uid && (stats.mode & OTHERS_WRITE) === 0 && stats.nlink === 1)
    return handle;
  await handle.close();
  throw refuse('it is no regular file, has another name, or others may write to it');
}

function create(path: string): Promise<FileHandle> {
  const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;
  return open(path, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, 0o640);
}
