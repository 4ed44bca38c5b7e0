/** The log of a run on this host, read in pieces. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';

export interface LogSlice {
  /** Of the first byte. */
  readonly from: number;
  readonly bytes: Buffer;
  /** Of the whole log now. */
  readonly size: number;
}

export interface LogQuestion {
  /** From which byte on; undefined: the last `lines`, or from the beginning. */
  readonly from: number | undefined;
  readonly lines: number | undefined;
  /** At most so many bytes. */
  readonly most: number;
  /** No process of the run is alive: what a killed one has left beside its log is its end. */
  readonly isOver: boolean;
  /** The effective user id: nobody else's file is a log. */
  readonly uid: number;
}

/** Undefined: there is no log. @throws what node:fs throws. */
export async function readLog(
  file: string,
  { from, lines, most, isOver, uid }: LogQuestion,
): Promise<LogSlice | undefined> {
  const parts = await openParts(file, isOver, uid);
  if (parts.length === 0) return undefined;
  try {
    const size = parts.reduce((sum, part) => sum + part.size, 0);
    const begin = from ?? (lines === undefined ? 0 : await startOfLast(parts, size, lines));
    const at = Math.min(begin, size);
    return { from: at, bytes: await readAt(parts, at, Math.min(most, size - at)), size };
  } finally {
    await Promise.all(parts.map(({ handle }) => handle.close()));
  }
}

interface LogPart {
  readonly handle: FileHandle;
  readonly size: number;
}

/** A run that was killed leaves its newest output in two more files, of which the older one is first. */
async function openParts(file: string, isOver: boolean, uid: number): Promise<readonly LogPart[]> {
  const head = await openPart(file, uid);
  if (!head || !isOver) return head ? [head] : [];
  const rest = await Promise.all([1, 2].map((n) => openPart(`${file}.${n}`, uid)));
  const tails = rest.flatMap((part) => part ?? []).sort((a, b) => a.writtenMs - b.writtenMs);
  return [head, ...tails];
}

async function openPart(path: string, uid: number) {
  const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;
  const handle = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).catch((error: unknown) => {
    if (NONE.includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  });
  const stats = await handle?.stat();
  if (handle && stats?.isFile() && stats.uid === uid)
    return { handle, size: stats.size, writtenMs: stats.mtimeMs };
  await handle?.close();
  return undefined;
}

/** ELOOP: a link is no log. */
const NONE = ['ENOENT', 'ENOTDIR', 'ELOOP'];

async function readAt(parts: readonly LogPart[], at: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  let filled = 0;
  let begin = 0;
  for (const { handle, size } of parts) {
    const skip = Math.max(0, at + filled - begin);
    begin += size;
    if (filled === length || skip >= size) continue;
    const { bytesRead } = await handle.read(bytes, filled, Math.min(length - filled, size - skip), skip);
    filled += bytesRead;
    // It has become shorter: what follows would be at a wrong place.
    if (bytesRead === 0) break;
  }
  return bytes.subarray(0, filled);
}

const BLOCK = 65_536;
const NEWLINE = 0x0a;

/** Where the last `lines` begin; an end without a line break is a line too. */
async function startOfLast(parts: readonly LogPart[], size: number, lines: number): Promise<number> {
  if (lines === 0) return size;
  let left = lines;
  for (let end = size; end > 0;) {
    const begin = Math.max(0, end - BLOCK);
    const block = await readAt(parts, begin, end - begin);
    for (let i = block.length - 1; i >= 0; i -= 1) {
      if (block[i] !== NEWLINE || begin + i === size - 1) continue;
      left -= 1;
      if (left === 0) return begin + i + 1;
    }
    end = begin;
  }
  return 0;
}
