/** Notices what changes in a folder: at once where the kernel tells, and by a look now and then where it does not. */
import { lstatSync, readdirSync, watch } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../platform/deps.ts';

/** Editors write a file in several steps. */
const SETTLE_MS = 200;
/** Inotify has limits, and a folder may be missing: this is how late a change is noticed then. */
const LOOK_MS = 60_000;

export interface FolderWatch {
  readonly folder: string;
  /** Something in it may have changed. */
  readonly changed: () => void;
  /** After a change the folder is left alone for so long, in milliseconds. */
  readonly settleMs?: number;
}

/** Calls `changed` after each change, until `signal` aborts. Never rejects, and never throws. */
export async function watchFolder(
  clock: Pick<Clock, 'sleep'>,
  { folder, changed, settleMs = SETTLE_MS }: FolderWatch,
  signal: AbortSignal,
): Promise<void> {
  let seen = fingerprint(folder);
  const isOver = () => signal.aborted;
  while (!isOver()) {
    const rung = new AbortController();
    const close = listen(folder, () => rung.abort());
    // What changed between the last look and the start of listening rings no bell.
    if (fingerprint(folder) === seen)
      await clock.sleep(LOOK_MS, { signal: AbortSignal.any([signal, rung.signal]) }).catch(() => undefined);
    close();
    if (isOver()) return;
    if (rung.signal.aborted) await clock.sleep(settleMs, { signal }).catch(() => undefined);
    const now = fingerprint(folder);
    if (now === seen) continue;
    seen = now;
    changed();
  }
}

function listen(folder: string, ring: () => void): () => void {
  try {
    const watcher = watch(folder, { persistent: false }, ring);
    watcher.on('error', () => undefined);
    return () => watcher.close();
  } catch {
    return () => undefined;
  }
}

/** Of the folder and the files in it: names, owners, modes, times. A file's text can't change without its time. */
export function fingerprint(folder: string): string {
  try {
    const names = readdirSync(folder).sort();
    return JSON.stringify([look(folder), ...names.map((name) => [name, look(join(folder, name))])]);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? '';
  }
}

function look(path: string): readonly number[] {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found) return [];
  const { dev, ino, mode, uid, gid, size, mtimeMs, ctimeMs } = found;
  return [dev, ino, mode, uid, gid, size, mtimeMs, ctimeMs];
}
