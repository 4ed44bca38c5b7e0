/** `runlock status`: the report → stdout. */
import type { Asked } from '../../cli/command.ts';
import type { StatusReport, StatusRequest } from './status.ts';
import type { Consul } from '../../consul/consul.ts';
import { assertNever } from '../../errors.ts';
import { createOutput } from '../../platform/terminal.ts';
import { renderJson } from '../../text/visible.ts';
import { renderStatus } from '../../output/status.ts';
import { renderServices } from '../../output/status-services.ts';
import type { Platform } from '../platform.ts';

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

async function showOnce({ common, options }: Asked<StatusRequest>, platform: Platform): Promise<number> {
  const { clock } = platform.deps;
  const { prefix, groups } = options;
  const log = platform.makeLog(common);
  const [{ status }, { findHidden }, consul] = await Promise.all([
    import('./status.ts'),
    import('./sources.ts'),
    platform.connect(log),
  ]);
  const { signal } = new AbortController();
  const [seen, hidden] = await Promise.all([
    status(consul, { prefix, groups, now: clock.now(), signal }),
    // Of a group that is named it is said where the group is shown.
    groups.length === 0 ? findHidden(consul, { prefix, groups }, signal) : undefined,
  ]);
  const found = { ...seen, ...(hidden !== undefined && { hidden }) };
  const report = await withServices(found, { consul, gate: options.gate, signal });
  const { isTTY, columns } = platform.stdout;
  const output = createOutput({ env: platform.env, isTTY, columns });
  const rendering = { ...output, now: clock.now(), overview: groups.length === 0 };
  const text = options.json
    ? `${renderJson(report, 2)}\n`
    : renderStatus(report, rendering) + renderServices(report.services ?? [], rendering);
  await platform.write(text);
  consul.close();
  return 0;
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
