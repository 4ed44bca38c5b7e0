/** Whether runs can write where their agent has them write: by a look at the folders, since the agent may not be able to tell. */
import { accessSync, constants, statfsSync } from 'node:fs';
import { diskAdvice } from '../../agent/state-folder.ts';
import { reasonOf } from '../../errors.ts';

/** What a run needs at least, in bytes: its note, and the beginning of its log. */
const LEAST_FREE = 65_536;

export interface Folder {
  /** `log folder` */
  readonly what: string;
  readonly path: string;
}

export interface Disk {
  /** Throws what node:fs throws. */
  readonly access: (path: string) => void;
  readonly freeBytes: (path: string) => number;
}

const disk: Disk = {
  access: (path) => accessSync(path, constants.W_OK | constants.X_OK),
  freeBytes: (path) => {
    const { bavail, bsize } = statfsSync(path);
    return bavail * bsize;
  },
};

/** A line for each folder that keeps runs from starting. One that is not there yet is made by the first run. */
export function folderProblems(folders: readonly Folder[], { access, freeBytes }: Disk = disk): string[] {
  return folders.flatMap(({ what, path }) => {
    try {
      access(path);
      if (freeBytes(path) >= LEAST_FREE) return [];
      return [`the disk of the ${what} ${path} is full: no run can start; free some space there`];
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return [];
      return [
        `the ${what} ${path} can't be written (${reasonOf(error)}): no run can start; ${diskAdvice(code) ?? 'make it writable'}`,
      ];
    }
  });
}
