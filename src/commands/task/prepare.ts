/** Whether a task's command can start here, and in which surroundings. */
import { checkProgram } from '../../agent/task/trusted-program.ts';
import type { Task } from '../../agent/task/definition.ts';
import type { Env } from '../../cli/command.ts';
import { RunlockError, isRunlockError, reasonOf } from '../../errors.ts';
import type { ExecAsked } from '../exec/run.ts';
import { accountOf, becoming, freshEnvironment, tryAs } from './account.ts';

/** Who starts it. */
export interface Starter {
  readonly uid: number;
  readonly env: Env;
}

/**
 * @param program one of the task's, command or noop. @param more variables that the run adds.
 * @throws RunlockError `config`, `not-found`, `not-executable`: what is wrong, and what to do.
 */
export function prepare(
  task: Task,
  program: string,
  { uid, env: callers, more = {} }: Starter & { readonly more?: Env },
): NonNullable<ExecAsked['surroundings']> {
  const account = accountOf(task, { uid });
  const cwd = task.cwd ?? '/';
  const own: Env = { ...freshEnvironment(account, callers), RUNLOCK_TASK: task.name, ...task.env, ...more };
  const programs = checkProgram(program, { uid, path: own['PATH'] ?? '' });
  const { become, as, env } = becoming(account, uid, own);
  reachable(task.file, () => tryAs({ programs, cwd, file: task.file, account }, as));
  return { cwd, env, become };
}

/** A folder on the way may be closed to this user. */
function reachable(file: string, look: () => void): void {
  try {
    look();
  } catch (error) {
    if (isRunlockError(error)) throw error;
    throw new RunlockError('config', `${file}: cwd: ${reasonOf(error)}; correct the path or its permissions`);
  }
}
