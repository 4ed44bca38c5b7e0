/** `runlock status`: the report → stdout. */
import type { Asked } from '../../cli/command.ts';
import { assertNever } from '../../errors.ts';
import { renderServices } from '../../output/status-services.ts';
import { renderStatus } from '../../output/status.ts';
import type { Output } from '../../platform/terminal.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import { onlyBlocked } from '../../view/below.ts';
import { readReport } from '../../view/read.ts';
import type { StatusRequest } from './request.ts';

export async function run(invocation: Asked<StatusRequest>, platform: Platform): Promise<number> {
  const { mode, node } = invocation.options;
  if (node !== undefined) return (await import('./run-node.ts')).runNode(invocation, node, platform);
  if (!mode) return showOnce(invocation, platform);
  switch (mode.kind) {
    case 'watch':
      return (await import('./run-watch.ts')).runWatch(invocation, platform);
    case 'check':
    case 'wrong-check':
      return (await import('./run-check.ts')).runCheck({ ...invocation, mode }, platform);
    default:
      return assertNever(mode);
  }
}

function showOnce({ common, options }: Asked<StatusRequest>, platform: Platform): Promise<number> {
  const { prefix, groups, json, all, blocked } = options;
  return withConsul({ common }, platform, async ({ consul, deps: { clock }, signal }) => {
    const now = clock.now();
    const found = await readReport(consul, { prefix, groups, gate: options.gate, now, signal });
    const report = blocked ? onlyBlocked(found) : found;
    const text = (output: Output) => {
      const rendering = { ...output, now: clock.now(), overview: true, named: groups, all: all === true };
      return renderStatus(report, rendering) + renderServices(report.services ?? [], rendering);
    };
    await print(platform, { json, data: report, text });
    return 0;
  });
}
