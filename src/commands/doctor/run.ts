/** `runlock doctor`: the report → stdout, its verdict → exit status. */
import type { Asked } from '../../cli/command.ts';
import { renderDoctor } from '../../output/doctor.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { withWays } from '../with-consul.ts';
import type { Folder } from '../task/tasks.ts';
import { doctor } from './doctor.ts';
import { checkTaskFiles, withTasks } from './task-files.ts';
import type { DoctorOptions } from './doctor.ts';

const statuses = { ok: 0, warning: 1, problem: 2 };

export type DoctorAsked = Asked<
  DoctorOptions & {
    readonly json: boolean;
    /** Where the tasks are, and whether the groups were asked for. */
    readonly from: Omit<Folder, 'uid'> & { readonly isGroupNamed: boolean };
  }
>;

export function run({ common, options }: DoctorAsked, platform: Platform): Promise<number> {
  const { env, nodeVersion, uid } = platform;
  const { json, from } = options;
  return withWays({ common }, platform, async ({ deps, signal, connect }) => {
    const runFiles = platform.runFiles(deps.emit);
    const tasks = await checkTaskFiles({ ...from, uid }, { env, uid });
    const all = { ...withTasks(options, tasks.tasks, from), tasks };
    const report = await doctor({ ...deps, env, nodeVersion, runFiles, connect }, all, signal);
    await print(platform, {
      json,
      data: report,
      text: ({ color, sentenceColumns: columns }) => renderDoctor(report, { color, columns }),
    });
    return statuses[report.verdict];
  });
}
