/** This node's tasks as its agent needs them: with the groups and conditions that `exec` would take from the file. */
import type { ServedTask, TaskFiles } from '../../agent/known.ts';
import { readTask as readInvocation } from '../../cli/parse.ts';
import { isRunlockError } from '../../errors.ts';
import type { ExecAsked } from '../exec/run.ts';
import { exec } from '../exec/command.ts';
import { readTasks } from '../task/tasks.ts';
import type { Defined, Folder } from '../task/tasks.ts';

/** @returns what reads them all; it throws a RunlockError `config` if their folder can't be trusted. */
export const taskFiles = (from: Folder) => async (): Promise<TaskFiles> => {
  const read = await readTasks(from);
  const tasks: ServedTask[] = [];
  const faults = [...read.faults];
  for (const defined of read.tasks) {
    try {
      tasks.push(await serve(defined, from));
    } catch (error) {
      if (!isRunlockError(error)) throw error;
      faults.push(`${defined.task.file}: ${error.message}`);
    }
  }
  return { tasks, faults };
};

async function serve({ task, options }: Defined, { defining }: Folder): Promise<ServedTask> {
  const { asked } = await readInvocation(exec, { options, words: task.command, flags: [] }, defining);
  const { groups, when = [], publish = [] } = (asked as ExecAsked).options;
  const names = [...new Set(groups.map(({ group }) => group))].sort((a, b) => (a < b ? -1 : 1));
  return {
    task,
    shown: {
      name: task.name,
      ...(task.description !== undefined && { description: task.description }),
      groups: names,
      allow: [],
      params: task.params.map(({ name }) => name),
      on: [],
      when: when.map(({ text }) => text),
      publish: publish.map(({ path }) => path),
    },
  };
}
