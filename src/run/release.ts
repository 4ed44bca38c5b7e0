/** `runlock release`: what was done → stdout. */
import type { Invocation } from '../cli/invocation.ts';
import { renderJson } from '../text/visible.ts';
import type { Platform } from '../commands/platform.ts';

export async function runRelease(
  { common, options, agent: agentAddress }: Extract<Invocation, { kind: 'release' }>,
  platform: Platform,
): Promise<number> {
  const log = platform.makeLog(common);
  const [{ release }, { endMaintenance }, describe, consul, agent] = await Promise.all([
    import('../commands/release.ts'),
    import('../commands/release/maintenance.ts'),
    import('../commands/release/describe.ts'),
    platform.connect(log),
    agentAddress === undefined ? undefined : platform.connect(log, agentAddress),
  ]);
  const { signal } = new AbortController();
  const deps = { ...platform.deps, log };
  const result = await release(
    { consul, deps, confirm: (question) => platform.confirm(question) },
    { ...options, by: platform.operator() },
    signal,
  );
  // What has failed, and held nothing, has not given anything back either.
  const isKept = result.kind === 'nothing' && options.failed !== undefined;
  const maintenance = isKept
    ? { ended: [], stays: [] }
    : await endMaintenance({ consul, agent, deps, prefix: options.prefix, run: platform.newRunId() }, result);
  const { describeRelease, describeMaintenance, describeStays } = describe;
  if (options.json) {
    const { ended, stays } = maintenance;
    const touched = ended.length + stays.length > 0 && { maintenance: { ended, stays } };
    await platform.write(`${renderJson({ v: 1, ...result, ...touched }, 2)}\n`);
  } else await platform.write(describeRelease(result, options.prefix) + describeMaintenance(maintenance));
  const stays = describeStays(maintenance, options.prefix);
  if (stays !== undefined) log('warning', stays, { event: 'maintenance-left', node: result.node });
  consul.close();
  agent?.close();
  return 0;
}
