/** Notices what changes in a folder: at once where the kernel tells, and by a look now and then where it does not. */
import { lstatSync, readdirSync, statSync, watch } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../platform/deps.ts';

/** Editors write a file in several steps. */
const SETTLE_MS = 200;
/** Inotify has limits: this is how late a change is noticed then. */
const LOOK_MS = 60_000;
/**
 * Another folder in its place (a mount, a link, one that was missing) rings no bell. To look for that is one call of the
 * kernel.
 */
const PLACE_MS = 15_000;

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
    const place = placeOf(folder);
    const either = { signal: AbortSignal.any([signal, rung.signal]) };
    // What changed between the last look and the start of listening rings no bell.
    const isSame = fingerprint(folder) === seen;
    for (let ms = 0; isSame && ms < LOOK_MS && placeOf(folder) === place; ms += PLACE_MS)
      if (
        await clock.sleep(PLACE_MS, either).then(
          () => false,
          () => true,
        )
      )
        break;
    close();
    if (isOver()) return;
    if (rung.signal.aborted || placeOf(folder) !== place)
      await clock.sleep(settleMs, { signal }).catch(() => undefined);
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

/** Which folder it is. */
function placeOf(folder: string): string {
  try {
    const { dev, ino } = statSync(folder);
    return `${dev} ${ino}`;
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
