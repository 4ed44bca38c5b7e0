/** The task files of this host: whether each can be read, is trusted, and could start. Asks Consul nothing. */
import type { DoctorOptions, TaskFilesFound } from './doctor.ts';
import { RunlockError, isRunlockError } from '../../errors.ts';
import type { Check } from '../../output/doctor.ts';
import { groupsOf } from '../../agent/task/announce.ts';
import { prepare } from '../task/prepare.ts';
import type { Starter } from '../task/prepare.ts';
import { TASKS_DIR } from '../tasks-dir-option.ts';
import { missingText, readTasks } from '../task/tasks.ts';
import type { Defined, Folder } from '../task/tasks.ts';

export async function checkTaskFiles(from: Folder, starter: Starter): Promise<TaskFilesFound> {
  try {
    const { tasks, faults, isMissing } = await readTasks(from);
    const checks = [
      // A host without tasks need not have the usual folder.
      ...(isMissing && from.folder !== TASKS_DIR ? [missing(from.folder)] : []),
      ...faults.map((found): Check => ({ check: 'tasks', level: 'problem', found, fix: FIX })),
      ...tasks.flatMap((defined) => checkStart(defined, starter)),
    ];
    if (checks.length > 0 || tasks.length === 0) return { checks, tasks };
    const found = `${tasks.length} ${tasks.length === 1 ? 'task' : 'tasks'} in ${from.folder}: valid`;
    return { checks: [{ check: 'tasks', level: 'ok', found }], tasks };
  } catch (error) {
    if (!(error instanceof RunlockError)) throw error;
    const fix = 'correct it; until then no task of this host runs';
    return { checks: [{ check: 'tasks', level: 'problem', found: error.message, fix }], tasks: [] };
  }
}

const missing = (folder: string): Check => {
  const [found = '', ...fix] = missingText(folder).split('; ');
  return { check: 'tasks', level: 'warning', found, fix: fix.join('; ') };
};

const FIX = 'correct the file; until then its task does not run';

/** Each program that it may start. */
function checkStart({ task }: Defined, starter: Starter): readonly Check[] {
  const programs = [...new Set([task.command[0], ...(task.noop ? [task.noop[0]] : [])])];
  return programs.flatMap((program): readonly Check[] => {
    try {
      prepare(task, program, starter);
      return [];
    } catch (error) {
      if (!isRunlockError(error)) throw error;
      const found = error.message.startsWith(task.file)
        ? error.message
        : `task ${task.name}: ${error.message}`;
      return [
        { check: 'tasks', level: 'problem', found, fix: 'correct that; until then the task does not run' },
      ];
    }
  });
}

/** The options, with what the runs of the tasks need; their groups stand in for a group that nobody named. */
export function withTasks<Options extends DoctorOptions>(
  options: Options,
  tasks: readonly Defined[],
  { isGroupNamed }: { readonly isGroupNamed: boolean },
): Options {
  if (tasks.length === 0) return options;
  const runs = tasks.map(({ asked }) => asked.options);
  const named = isGroupNamed ? options.groups : [];
  return {
    ...options,
    groups: [...new Set([...named, ...runs.flatMap(groupsOf)])].sort(),
    gates: [...options.gates, ...runs.flatMap(({ gate }) => (gate ? [gate] : []))],
    states: [
      ...options.states,
      ...tasks.map(({ task, asked: { options: run } }) => ({
        group: groupsOf(run)[0] ?? 'default',
        when: [...(run.when ?? []), ...(task.trigger?.on ?? [])],
        published: [...(run.publish ?? []), ...(run.during ?? [])].map(({ path }) => path),
      })),
    ],
  };
}
