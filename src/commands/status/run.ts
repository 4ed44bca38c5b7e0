/** `runlock status`: the report → stdout. */
import type { Asked } from '../../cli/command.ts';
import type { Consul } from '../../consul/consul.ts';
import { assertNever } from '../../errors.ts';
import { renderServices } from '../../output/status-services.ts';
import { renderStatus } from '../../output/status.ts';
import type { Output } from '../../platform/terminal.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import { findHidden } from './sources.ts';
import { status } from './status.ts';
import type { StatusReport, StatusRequest } from './status.ts';

export async function run(invocation: Asked<StatusRequest>, platform: Platform): Promise<number> {
  const { mode } = invocation.options;
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
  const { prefix, groups, json } = options;
  return withConsul({ common }, platform, async ({ consul, deps: { clock }, signal }) => {
    const [seen, hidden] = await Promise.all([
      status(consul, { prefix, groups, now: clock.now(), signal }),
      // Of a group that is named it is said where the group is shown.
      groups.length === 0 ? findHidden(consul, { prefix, groups }, signal) : undefined,
    ]);
    const found = { ...seen, ...(hidden !== undefined && { hidden }) };
    const report = await withServices(found, { consul, gate: options.gate, signal });
    const text = (output: Output) => {
      const rendering = { ...output, now: clock.now(), overview: groups.length === 0 };
      return renderStatus(report, rendering) + renderServices(report.services ?? [], rendering);
    };
    await print(platform, { json, data: report, text });
    return 0;
  });
}

interface Looking {
  readonly consul: Consul;
  readonly gate: StatusRequest['gate'];
  readonly signal: AbortSignal;
}

async function withServices(report: StatusReport, { consul, gate, signal }: Looking): Promise<StatusReport> {
  if (!gate) return report;
  const { statusServices } = await import('./services.ts');
  return { ...report, services: await statusServices(consul, gate, signal) };
}
