/** `runlock release`: what was done → stdout. */
import type { Asked } from '../../cli/command.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import { describeMaintenance, describeRelease } from './describe.ts';
import { endMaintenance } from './maintenance.ts';
import type { MaintenanceEnd } from './maintenance.ts';
import { isAskedByNode, release } from './release.ts';
import type { ReleaseOptions } from './released.ts';

/** As for any run that is in the way and was not ended. */
const EXIT_WAITING = 75;

export interface ReleaseAsked extends Asked<Omit<ReleaseOptions, 'by'> & { readonly json: boolean }> {
  /** The address of the owner's own Consul agent. */
  readonly agent?: string;
}

export function run({ common, options, agent: address }: ReleaseAsked, platform: Platform): Promise<number> {
  return withConsul({ common, agent: address }, platform, async ({ consul, agent, deps, signal }) => {
    const result = await release(
      { consul, deps, confirm: (question) => platform.confirm(question) },
      { ...options, by: platform.operator() },
      signal,
    );
    // A node that reports a failure but held nothing has released nothing either, so leave its maintenance alone.
    const isKept = result.kind === 'nothing' && options.failed !== undefined;
    const maintenance: MaintenanceEnd = isKept
      ? { ended: [], stays: [] }
      : await endMaintenance(
          { consul, agent, deps, prefix: options.prefix, run: platform.newRunId() },
          result,
        );
    const { ended, stays } = maintenance;
    const touched = ended.length + stays.length > 0 && { maintenance: { ended, stays } };
    await print(platform, {
      json: options.json,
      data: { ...result, ...touched },
      isProse: true,
      text: () =>
        describeRelease(result, {
          prefix: options.prefix,
          nowMs: deps.clock.now(),
          isOwn: isAskedByNode(options),
        }) + describeMaintenance(maintenance),
    });
    const { why = 'reason unknown', need } = maintenance;
    const left = { kind: 'released', prefix: options.prefix, places: stays, why, need } as const;
    if (stays.length > 0) deps.emit({ event: 'maintenance-left', node: result.node, detail: left });
    return result.kind === 'outside' ? EXIT_WAITING : 0;
  });
}
