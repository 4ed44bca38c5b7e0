/** The folder of hook files → the hooks of this node. */
import { resolve } from 'node:path';
import { toHook } from '../../agent/hook/definition.ts';
import type { Hook } from '../../agent/hook/definition.ts';
import { isTaskName, TASK_NAMES } from '../../agent/task/definition.ts';
import { readStatements } from '../../cli/config/statements.ts';
import { RunlockError, isRunlockError } from '../../errors.ts';
import { listTrusted, readTrusted } from '../../platform/trusted-file.ts';

export interface HookFolder {
  readonly folder: string;
  readonly uid: number;
}

const LIMIT = 65_536;
const SUFFIX = '.toml';

/** All of them by name, and why others can't be had, a line each; a folder that can't be trusted has none. Never throws. */
export function readHooks(from: HookFolder): { hooks: readonly Hook[]; faults: readonly string[] } {
  const hooks: Hook[] = [];
  const faults: string[] = [];
  const attempt = <T>(read: () => T): T | undefined => {
    try {
      return read();
    } catch (error) {
      if (!isRunlockError(error)) throw error;
      faults.push(error.message);
      return undefined;
    }
  };
  const names = attempt(() => listTrusted(from.folder, from)) ?? [];
  for (const file of names.filter((each) => each.endsWith(SUFFIX) && !each.startsWith('.')).sort()) {
    const hook = attempt(() => readHook(from, file));
    if (hook) hooks.push(hook);
  }
  return { hooks, faults };
}

function readHook({ folder, uid }: HookFolder, name: string): Hook {
  const file = `${resolve(folder)}/${name}`;
  const hook = name.slice(0, -SUFFIX.length);
  if (!isTaskName(hook))
    throw new RunlockError(
      'config',
      `${file}: not a hook's name; rename the file so that its name has ${TASK_NAMES}`,
    );
  const text = readTrusted(file, { uid, limit: LIMIT }).toString('utf8');
  return toHook(
    { name: hook, file },
    readStatements(file, text).filter(({ kind }) => kind === 'value'),
  );
}
