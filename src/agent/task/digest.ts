/** What tells runs of a task with the same parameters from all others. Pure. */
import { createHash } from 'node:crypto';
import { isRunlockError } from '../../errors.ts';
import type { Task } from './definition.ts';
import { fill } from './parameters.ts';

export interface Digested {
  readonly task: Pick<Task, 'name' | 'file' | 'user' | 'cwd'>;
  /** Of its command, with the parameters in their places. */
  readonly words: readonly string[];
  /** Who starts it. */
  readonly uid: number;
}

/** In characters: 96 bits. */
const LENGTH = 24;

/** The variables of its environment are left out: they can be secrets, which a digest would let others guess. */
export const digestOf = ({ task: { name, file, user, cwd }, words, uid }: Digested): string =>
  createHash('sha256')
    .update(JSON.stringify([name, file, user ?? '', cwd ?? '', uid, words]))
    .digest('hex')
    .slice(0, LENGTH);

/** Of the run that a request asks for; undefined: this task can't be run so. */
export function digestAsked(
  task: Task,
  params: Readonly<Record<string, string>>,
  uid: number,
): string | undefined {
  try {
    return digestOf({ task, words: fill(task, new Map(Object.entries(params))), uid });
  } catch (error) {
    if (isRunlockError(error)) return undefined;
    throw error;
  }
}
