import { option } from '../cli/option.ts';
import { parsePath } from '../cli/values.ts';

/** Unless another is given. */
export const TASKS_DIR = '/etc/runlock/tasks.d';

/** Where this node's tasks are. */
export const tasksDirOption = () =>
  option('--tasks-dir <folder>', 'folder of the task files', parsePath, TASKS_DIR);
