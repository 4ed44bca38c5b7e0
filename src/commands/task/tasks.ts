/** The folder of task files → the tasks of this node. */
import { resolve } from 'node:path';
import { commandTree, readTask as readInvocation } from '../../cli/parse.ts';
import { keysOf } from '../../cli/config/apply.ts';
import { readSettings } from '../../cli/config/read.ts';
import type { Config, Keys } from '../../cli/config/read.ts';
import { readStatements } from '../../cli/config/statements.ts';
import type { Defining } from '../../cli/command.ts';
import { RunlockError, isRunlockError } from '../../errors.ts';
import { checkTask } from '../../agent/task/announce.ts';
import { isOfTask, isTaskName, TASK_NAMES, toTask } from '../../agent/task/definition.ts';
import type { Task } from '../../agent/task/definition.ts';
import { listTrusted, readTrusted } from '../../platform/trusted-file.ts';
import { nearest } from '../../text/nearest.ts';
import { exec } from '../exec/command.ts';
import type { ExecAsked } from '../exec/run.ts';

/** A task, what its file says of the options of `exec`, and what `exec` is asked with them, parameters not yet filled in. */
export interface Defined {
  readonly task: Task;
  readonly options: Config;
  readonly asked: ExecAsked;
}

export interface Folder {
  readonly folder: string;
  readonly uid: number;
  readonly defining: Defining;
  /** Of this call, as on the line of `exec`. */
  readonly flags?: readonly string[];
}

/** Most bytes of a task's file. */
const LIMIT = 65_536;
const SUFFIX = '.toml';

export interface TasksFound {
  readonly tasks: readonly Defined[];
  /** Why other files are none, a line each. */
  readonly faults: readonly string[];
  /** There is no such folder. */
  readonly isMissing: boolean;
}

/** What is missing, and what to do. */
export const missingText = (folder: string): string =>
  `${folder}: no such folder; make it, or name another with --tasks-dir`;

/** All of them by name. @throws RunlockError `config`: the folder can't be trusted. */
export async function readTasks(from: Folder): Promise<TasksFound> {
  const tasks: Defined[] = [];
  const faults: string[] = [];
  const names = namesIn(from);
  for (const name of names ?? []) {
    try {
      tasks.push(await read(from, name));
    } catch (error) {
      if (!isRunlockError(error)) throw error;
      faults.push(error.message);
    }
  }
  return { tasks, faults, isMissing: names === undefined };
}

/** @throws RunlockError `config`: there is none of that name; its file is wrong; others can write it. */
export async function readTask(from: Folder, name: string): Promise<Defined> {
  const names = namesIn(from);
  if (!names) throw new RunlockError('config', `no task ${name}: ${missingText(from.folder)}`);
  if (names.includes(name)) return read(from, name);
  const meant = nearest(name, names);
  const hint = meant ? `did you mean '${meant}'?` : "'runlock task list' lists those of this node";
  throw new RunlockError('config', `no task ${name} in ${from.folder} (a file ${name}${SUFFIX}); ${hint}`);
}

/** Undefined: there is no such folder. Editors' and package managers' leftovers (chef.toml~, chef.toml.dpkg-old, .chef.toml.swp) are not tasks. */
function namesIn({ folder, uid }: Folder): readonly string[] | undefined {
  return listTrusted(folder, { uid })
    ?.filter((file) => file.endsWith(SUFFIX) && !file.startsWith('.'))
    .map((file) => file.slice(0, -SUFFIX.length))
    .sort();
}

async function read({ folder, uid, defining, flags = [] }: Folder, name: string): Promise<Defined> {
  const file = `${resolve(folder)}/${name}${SUFFIX}`;
  if (!isTaskName(name))
    throw new RunlockError(
      'config',
      `${file}: not a task's name; rename the file so that its name has ${TASK_NAMES}`,
    );
  const statements = readStatements(file, toText(file, readTrusted(file, { uid, limit: LIMIT })));
  const section = statements.find(({ path: [first] }) => first === 'groups');
  if (section)
    throw new RunlockError(
      'config',
      `${file}:${section.line}: a task has no sections for groups; write group = "prod/web"`,
    );
  const values = statements.filter(({ kind }) => kind === 'value');
  const headOfOptions = statements.find((each) => each.kind !== 'value' && !isOfTask(each));
  const options = values.filter((each) => !isOfTask(each));
  const task = toTask({ name, file }, values.filter(isOfTask));
  const settings = readSettings(
    file,
    headOfOptions ? [headOfOptions, ...options] : options,
    await keys(defining),
  );
  const { asked } = await naming(file, () =>
    readInvocation(exec, { options: settings, words: task.command, flags }, defining),
  );
  const defined = { task, options: settings, asked: asked as ExecAsked };
  checkTask(task, defined.asked.options);
  return defined;
}

/** Options that each are right and don't fit together are the file's fault. */
async function naming<T>(file: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!isRunlockError(error, 'usage')) throw error;
    throw new RunlockError('config', `${file}: ${error.message}`);
  }
}

function toText(file: string, bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new RunlockError('config', `${file}: it is not UTF-8; save it as UTF-8`);
  }
}

/** The options of `exec`, which a task's file may set. */
const keys = async (defining: Defining): Promise<Keys> =>
  keysOf((await commandTree([{ name: exec.name, load: () => Promise.resolve(exec) }], defining)).commands);
