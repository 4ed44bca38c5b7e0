/** `runlock doctor`: the report → stdout, its verdict → exit status. */
import type { Asked } from '../../cli/command.ts';
import { renderDoctor } from '../../output/doctor.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { doctor } from './doctor.ts';
import type { DoctorOptions } from './doctor.ts';

const statuses = { ok: 0, warning: 1, problem: 2 };

export type DoctorAsked = Asked<DoctorOptions & { readonly json: boolean }>;

export async function run({ common, options }: DoctorAsked, platform: Platform): Promise<number> {
  const emit = platform.makeLog(common);
  const { env, nodeVersion } = platform;
  const deps = {
    ...platform.deps,
    env,
    nodeVersion,
    runFiles: platform.runFiles(emit),
    connect: (agent?: string) => platform.connect(emit, agent),
  };
  const report = await doctor(deps, options, new AbortController().signal);
  await print(platform, { json: options.json, data: report, text: (output) => renderDoctor(report, output) });
  return statuses[report.verdict];
}
