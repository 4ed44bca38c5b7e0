/** Old logs of runs: which of them go, before a new run begins, so that all together never fill the disk. */
import { lstat, readdir, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';

export interface LogFile {
  readonly path: string;
  readonly bytes: number;
  /** When it was written last, in milliseconds since the epoch. */
  readonly writtenMs: number;
}

export interface LogBounds {
  /** Of all logs together. */
  readonly bytes: number;
  /** So many in all: each is looked at whenever a run begins. */
  readonly files: number;
  /** The part of the disk that has to stay free. */
  readonly free: number;
  /** Older ones go in any case. */
  readonly ageMs: number;
}

export const LOG_BOUNDS: LogBounds = {
  bytes: 1_073_741_824,
  files: 5_000,
  free: 0.05,
  ageMs: 30 * 86_400_000,
};

interface Disk {
  readonly freeBytes: number;
  readonly bytes: number;
}

/**
 * The logs to remove, the oldest first: too old ones, and more until the rest keeps the bounds. Pure.
 * @param isKept for logs of runs that are under way: they stay, whatever they take.
 */
export function oldLogs(
  files: readonly LogFile[],
  isKept: (path: string) => boolean,
  {
    nowMs,
    disk,
    bounds = LOG_BOUNDS,
  }: { readonly nowMs: number; readonly disk: Disk; readonly bounds?: LogBounds },
): readonly LogFile[] {
  const byAge = files.filter(({ path }) => !isKept(path)).sort((a, b) => a.writtenMs - b.writtenMs);
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  const missing = Math.max(total - bounds.bytes, disk.bytes * bounds.free - disk.freeBytes);
  let freed = 0;
  let tooMany = files.length - bounds.files;
  return byAge.filter(({ bytes, writtenMs }) => {
    if (freed >= missing && tooMany <= 0 && nowMs - writtenMs <= bounds.ageMs) return false;
    freed += bytes;
    tooMany -= 1;
    return true;
  });
}

/** `ID.TASK.log` or `TIME.TASK.log`, and the parts of a run that was killed beside it. */
const LOG = /\.log(?:\.[12])?$/;

/**
 * Removes old logs below the folder: its own, and those of its folders. Follows no links. Never throws: what can't be removed
 * stays.
 * @param isLive for logs of runs that are under way.
 * @returns how many bytes it removed.
 */
export async function removeOldLogs(
  folder: string,
  isLive: (path: string) => boolean,
  { nowMs, bounds = LOG_BOUNDS }: { readonly nowMs: number; readonly bounds?: LogBounds },
): Promise<number> {
  try {
    const { bavail, blocks, bsize } = await statfs(folder);
    const disk = { freeBytes: bavail * bsize, bytes: blocks * bsize };
    const files = await logsIn(folder);
    let removed = 0;
    for (const { path, bytes } of oldLogs(files, isLive, { nowMs, disk, bounds }))
      await unlink(path).then(
        () => (removed += bytes),
        () => undefined,
      );
    return removed;
  } catch {
    return 0;
  }
}

async function logsIn(folder: string, depth = 1): Promise<readonly LogFile[]> {
  const found: LogFile[] = [];
  for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
    const path = join(folder, entry.name);
    if (entry.isDirectory() && depth > 0) found.push(...(await logsIn(path, depth - 1)));
    if (!entry.isFile() || !LOG.test(entry.name)) continue;
    const stats = await lstat(path).catch(() => undefined);
    if (stats) found.push({ path, bytes: stats.size, writtenMs: stats.mtimeMs });
  }
  return found;
}
