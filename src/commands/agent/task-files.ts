/** This node's tasks as its agent needs them. */
import type { TaskFiles } from '../../agent/known.ts';
import { announce } from '../../agent/task/announce.ts';
import { readHooks } from './hook-files.ts';
import { missingText, readTasks } from '../task/tasks.ts';
import type { Folder } from '../task/tasks.ts';

/** @returns what reads them all; it throws a RunlockError `config` if their folder can't be trusted. */
export const taskFiles =
  (from: Folder & { readonly hooksFolder: string }) => async (): Promise<TaskFiles> => {
    const { tasks, faults, isMissing } = await readTasks(from);
    const hooks = readHooks({ ...from, folder: from.hooksFolder });
    return {
      tasks: tasks.map(({ task, asked: { options } }) => ({
        task,
        shown: announce(task, options),
        needsHealth: options.gate?.healthyWithinMs !== undefined,
        publish: options.publish ?? [],
        during: (options.during ?? []).map(({ path }) => path),
      })),
      ...(hooks.hooks.length > 0 && { hooks: hooks.hooks }),
      faults: [...(isMissing ? [missingText(from.folder)] : []), ...faults, ...hooks.faults],
    };
  };
