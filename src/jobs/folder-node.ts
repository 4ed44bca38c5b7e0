/**
 * Which node a state folder (`--state-dir`) belongs to: `<state folder>/node`, written at its first use. What is noted there
 * of a job's target or of a process has no meaning for another node, also of the same host.
 */
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { RunlockError, isRunlockError, reasonOf } from '../errors.ts';
import { decode, encode, isText } from '../lock/records.ts';
import { visible } from '../text/visible.ts';

const fileIn = (stateFolder: string) => join(stateFolder, 'node');

/** @throws RunlockError `config`: it belongs to another node; `unwritten`: nobody can tell. Writes nothing. */
export function checkFolder(stateFolder: string, node: string): void {
  const owner = readOwner(fileIn(stateFolder));
  if (owner !== undefined && owner !== node) throw othersFolder(stateFolder, { owner, node });
}

/**
 * From now on the folder belongs to this node.
 * @throws RunlockError `config`: it belongs to another; `unwritten`: the disk does not take it, or nobody can tell. Either
 * way nothing may be noted there.
 */
export function takeFolder(stateFolder: string, node: string): void {
  const file = fileIn(stateFolder);
  if (readOwner(file) === undefined) write(stateFolder, node);
  checkFolder(stateFolder, node);
}

export function othersFolder(
  stateFolder: string,
  { owner, node }: { readonly owner: string; readonly node: string },
): RunlockError {
  const [whose, here] = [visible(owner), visible(node)];
  return new RunlockError(
    'config',
    `${stateFolder} belongs to node ${whose}, and this is node ${here}; give the agent of ${here} a folder of its own with --state-dir, or, if ${whose} was renamed to ${here}, remove ${fileIn(stateFolder)}`,
  );
}

/** Undefined: the folder was not used yet. */
function readOwner(file: string): string | undefined {
  try {
    const value = readFileSync(file, 'utf8');
    return decode<{ readonly node: string }>('name of a node', { node: isText }, { key: file, value }).node;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    const why = isRunlockError(error)
      ? `${file} is broken, or of a newer runlock; remove it if the folder is this node's`
      : `cannot read ${file}, which says which node's folder this is: ${reasonOf(error)}`;
    throw new RunlockError('unwritten', why, { cause: error });
  }
}

/** All of it or nothing, and never over another's. */
function write(stateFolder: string, node: string): void {
  const file = fileIn(stateFolder);
  const draft = `${file}.${crypto.randomUUID()}.new`;
  try {
    mkdirSync(stateFolder, { recursive: true, mode: 0o755 });
    const fd = openSync(draft, 'wx', 0o600);
    try {
      writeSync(fd, encode({ node }));
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    linkSync(draft, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return;
    const why = `cannot write ${file}, which says which node's folder this is: ${reasonOf(error)}; make room for it, or make it writable`;
    throw new RunlockError('unwritten', why, { cause: error });
  } finally {
    remove(draft);
  }
}

function remove(draft: string): void {
  try {
    rmSync(draft, { force: true });
  } catch {
    // It was not written either.
  }
}
