/** Whether the folders that an agent is told to use (`--state-dir`, `--log-dir`) can ever do, and are nobody else's to change. */
import { lstatSync, mkdirSync, realpathSync, statSync } from 'node:fs';
import { RunlockError } from '../errors.ts';
import { checkOwnFolder, checkTaskFolder } from '../platform/trusted-file.ts';
import type { Reader } from '../platform/trusted-file.ts';

export interface AgentFolders {
  readonly stateDir: string;
  readonly logDir: string;
}

/** @throws RunlockError `config`: no folder is at this path, and none can be made there. */
export function checkIsFolder(option: string, path: string): void {
  try {
    if (statSync(path).isDirectory()) return;
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    // All else may get better, or says itself what it is.
    if (!NO_FOLDER.includes(code)) return;
  }
  throw new RunlockError('config', `${path}: it is not a folder; name a folder with ${option}`);
}

/** A file is on the way to it; links that lead nowhere but to each other. */
const NO_FOLDER = ['ENOTDIR', 'ELOOP'];

/**
 * For an agent that starts. A folder that is not there yet is made by the first run.
 * @throws RunlockError `config`: what is wrong, and what to do.
 */
export function checkFolders({ stateDir, logDir }: AgentFolders, reader: Reader): void {
  checkIsFolder('--state-dir', stateDir);
  checkIsFolder('--log-dir', logDir);
  if (isThere(stateDir)) checkTaskFolder(stateDir, reader);
  if (isThere(logDir)) checkOwnFolder(realpathSync(logDir), reader);
}

/**
 * Makes the folder for the logs of one principal. Nobody else can change what was checked: so it stays as it was found.
 * @throws RunlockError `config`: others can change it, or it is a link; what node:fs throws.
 */
export function makeLogFolder(logDir: string, folder: string, reader: Reader): void {
  mkdirSync(logDir, { recursive: true, mode: 0o750 });
  checkOwnFolder(realpathSync(logDir), reader);
  if (!isThere(folder)) mkdirSync(folder, { mode: 0o750 });
  checkOwnFolder(folder, reader, 'alone');
}

const isThere = (path: string): boolean => {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return false;
  }
};
