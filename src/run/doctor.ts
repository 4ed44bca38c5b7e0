/** `runlock doctor`: the report → stdout, its verdict → exit status. */
import type { Invocation } from '../cli/invocation.ts';
import { createOutput } from '../platform/terminal.ts';
import { renderJson } from '../text/visible.ts';
import { renderDoctor } from '../output/doctor.ts';
import type { Platform } from '../commands/platform.ts';

const statuses = { ok: 0, warning: 1, problem: 2 };

export async function runDoctor(
  { common, options }: Extract<Invocation, { kind: 'doctor' }>,
  platform: Platform,
): Promise<number> {
  const log = platform.makeLog(common);
  const { doctor } = await import('../commands/doctor.ts');
  const { env, nodeVersion } = platform;
  const deps = {
    ...platform.deps,
    env,
    nodeVersion,
    runFiles: platform.runFiles(log),
    connect: (agent?: string) => platform.connect(log, agent),
  };
  const report = await doctor(deps, options, new AbortController().signal);
  const { color } = createOutput({ env: platform.env, isTTY: platform.stdout.isTTY });
  await platform.write(options.json ? `${renderJson(report, 2)}\n` : renderDoctor(report, { color }));
  return statuses[report.verdict];
}
