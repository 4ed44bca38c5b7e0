/** `runlock doctor`: the report → stdout, its verdict → exit status. */
import type { Asked } from '../../cli/command.ts';
import { renderDoctor } from '../../output/doctor.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { withWays } from '../with-consul.ts';
import { doctor } from './doctor.ts';
import type { DoctorOptions } from './doctor.ts';

const statuses = { ok: 0, warning: 1, problem: 2 };

export type DoctorAsked = Asked<DoctorOptions & { readonly json: boolean }>;

export function run({ common, options }: DoctorAsked, platform: Platform): Promise<number> {
  const { env, nodeVersion } = platform;
  const { json } = options;
  return withWays({ common }, platform, async ({ deps, signal, connect }) => {
    const runFiles = platform.runFiles(deps.emit);
    const report = await doctor({ ...deps, env, nodeVersion, runFiles, connect }, options, signal);
    await print(platform, {
      json,
      data: report,
      text: ({ color, sentenceColumns: columns }) => renderDoctor(report, { color, columns }),
    });
    return statuses[report.verdict];
  });
}
