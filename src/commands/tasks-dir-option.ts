import { option } from '../cli/option.ts';
import { parsePath } from '../cli/values.ts';

/** Where this node's tasks are. */
export const tasksDirOption = () =>
  option('--tasks-dir <folder>', 'folder of the task files', parsePath, '/etc/runlock/tasks.d');
