/** Why this node's own files refuse a request. Pure. */
import { isRunlockError } from '../errors.ts';
import type { Spec } from '../jobs/documents.ts';
import type { TaskFiles } from './known.ts';
import { fill, fillNoop } from './task/parameters.ts';

export interface Asking {
  readonly principal: string;
  readonly spec: Pick<Spec, 'task' | 'params' | 'home' | 'noop'>;
  /** How many older requests of this principal are open on this node. */
  readonly older: number;
}

/** Open requests of one principal on one node. */
export const MOST_OPEN = 100;

/** Undefined: the files allow it. The texts are for who asked: a task that they may not start is not described. */
export function whyRefused(
  { principal, spec, older }: Asking,
  { tasks, faults }: TaskFiles,
): string | undefined {
  const { task: name, params, home, noop } = spec;
  const found = tasks.find(({ task }) => task.name === name);
  if (!found) {
    const fault = faults.find((text) => text.includes(`/${name}.toml`));
    return fault === undefined ? `this node has no task ${name}` : `task ${name} can't be used: ${fault}`;
  }
  const { allow, groups } = found.shown;
  if (!allow.includes(principal))
    return `task ${name} does not allow ${principal}; its file must name ${principal} in allow`;
  if (home !== groups[0])
    return `task ${name} runs in ${groups.join(', ')} on this node, and the job was started for ${home}`;
  if (older >= MOST_OPEN)
    return `too many: ${MOST_OPEN} older requests of ${principal} are open on this node`;
  try {
    const given = new Map(Object.entries(params));
    if (noop) fillNoop(found.task, given);
    else fill(found.task, given);
    return undefined;
  } catch (error) {
    if (isRunlockError(error)) return error.message;
    throw error;
  }
}
