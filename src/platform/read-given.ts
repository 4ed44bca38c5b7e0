/** Reads a file that the user named, without hanging on a pipe that has no writer or on an endless device. */
import { closeSync, constants, fstatSync, openSync, read, readSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';

/** Most bytes of a configuration file, or of stdin. */
const LIMIT = 1_048_576;
/** How long to wait for a pipe, in milliseconds. */
const PIPE_MS = 5_000;
const PAUSE_MS = 10;

/** Its message is the reason, worded as part of a sentence. */
class Unfit extends Error {
  readonly code = 'EUNFIT';
}

const tooLong = (limit: number) => new Unfit(`it holds more than ${limit / 1_048_576} MiB`);

/**
 * Reads the whole file, at most `limit` bytes. Waits up to 5 s for a file that is not a regular one (`<(echo token)`).
 * Blocks the process, so use it only at the start.
 * @throws the file system's error, or one with the code EUNFIT, whose message is the reason.
 */
export function readGiven(path: string, limit = LIMIT): Buffer {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const isPipe = fstatSync(fd).isFIFO();
    const untilMs = performance.now() + PIPE_MS;
    const chunks: Buffer[] = [];
    for (let length = 0; ;) {
      const chunk = Buffer.alloc(65_536);
      const read = readNow(fd, chunk);
      // A pipe that no writer has opened yet looks as if it were at its end.
      if (read === 0 && !(isPipe && length === 0)) return Buffer.concat(chunks);
      if (read !== undefined && read > 0) chunks.push(chunk.subarray(0, read));
      length += read ?? 0;
      if (length > limit) throw tooLong(limit);
      if (read !== undefined && read > 0) continue;
      if (performance.now() >= untilMs) throw new Unfit('reading it took longer than 5 s');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);
    }
  } finally {
    closeSync(fd);
  }
}

/** Undefined: there is nothing yet. */
function readNow(fd: number, into: Buffer): number | undefined {
  try {
    return readSync(fd, into, 0, into.length, null);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EAGAIN') return undefined;
    throw error;
  }
}

/** Reads a regular file without blocking, for use during a run. @throws as `readGiven`. */
export async function readPlain(path: string, limit: number): Promise<Buffer> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const found = await file.stat();
    if (!found.isFile()) throw new Unfit('it is not a regular file');
    if (found.size > limit) throw tooLong(limit);
    return await file.readFile();
  } finally {
    await file.close();
  }
}

const readSome = (fd: number, into: Buffer) =>
  new Promise<number>((resolve, reject) =>
    read(fd, into, 0, into.length, null, (error, count) => (error ? reject(error) : resolve(count))),
  );

/** Reads an open descriptor to its end, however long that takes; at most `limit` bytes. @throws as `readGiven`. */
export async function readWhole(fd: number, limit = LIMIT): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for (let length = 0; ;) {
    const chunk = Buffer.alloc(65_536);
    const count = await readSome(fd, chunk).catch(async (error: unknown) => {
      // EAGAIN: the caller may have made the descriptor non-blocking.
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error;
      await setTimeout(PAUSE_MS);
      return undefined;
    });
    if (count === 0) return Buffer.concat(chunks);
    chunks.push(chunk.subarray(0, count ?? 0));
    length += count ?? 0;
    if (length > limit) throw tooLong(limit);
  }
}
