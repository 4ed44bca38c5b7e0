/** The task files of a node → what its agent and their runs need. */
import { groupsOf } from '../../agent/task/announce.ts';
import { RunlockError } from '../../errors.ts';
import { readTasks } from '../task/tasks.ts';
import type { Defined, Folder } from '../task/tasks.ts';
import type { PolicyGroup, PolicyRequest } from './rules.ts';

/**
 * The request, and what all tasks of the folder need.
 * @throws RunlockError `config`: a task's file is wrong, and the rules for it can't be known; `usage`: there is no group.
 */
export async function withTasks(request: PolicyRequest, from: Folder): Promise<PolicyRequest> {
  const { tasks, faults } = await readTasks(from);
  const [fault] = faults;
  if (fault !== undefined) throw new RunlockError('config', fault);
  const groups = [...request.groups, ...tasks.flatMap(policyGroups)];
  if (groups.length === 0)
    throw new RunlockError(
      'usage',
      `no tasks in ${from.folder}; name the groups and principals of its tasks with -g and --principal, or their folder with --tasks-dir`,
    );
  const triggers = tasks.flatMap(({ task }) => task.trigger ?? []);
  const allowed = tasks.flatMap(({ task }) => task.allow);
  return {
    ...request,
    groups,
    principals: [...new Set([...request.principals, ...allowed])],
    // Without any task, those that will be there are unknown.
    ...((triggers.length > 0 || tasks.length === 0) && { on: triggers.flatMap(({ on }) => on) }),
  };
}

/** The first group stands for what the run needs besides its slots. */
function policyGroups({ asked: { options } }: Defined): readonly PolicyGroup[] {
  const { when = [], publish = [], during = [], gate } = options;
  const published = [...publish, ...during].map(({ path }) => path);
  return groupsOf(options).map((group, at) => ({
    group,
    when: at === 0 ? when : [],
    published: at === 0 ? published : [],
    ...(gate && {
      gate: {
        services: gate.services,
        ...(gate.maintenance !== undefined && { maintenance: gate.maintenance }),
      },
    }),
  }));
}
