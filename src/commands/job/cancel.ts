/** `runlock job cancel`: what has not started never starts. */
import { FIRST_CONTACT } from '../../consul/consul.ts';
import { RunlockError } from '../../errors.ts';
import { stopJob } from '../../jobs/end.ts';
import { jobText } from '../../jobs/keys.ts';
import { viewJob } from '../../jobs/view.ts';
import { renderJob } from '../../output/job.ts';
import { reportJob } from '../../view/job.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import type { ConsulWays } from '../with-consul.ts';
import { homeOfJob, noJob } from './home.ts';
import type { CancelRequest, JobOptions } from './request.ts';

/** @throws RunlockError `refused`: it had ended before. */
export async function cancel(
  { consul, deps, signal }: ConsulWays,
  { prefix, json, ref, reason, kill }: JobOptions & CancelRequest,
  platform: Platform,
): Promise<number> {
  const home = await homeOfJob({ consul, prefix, ref, signal });
  const wish = { why: 'cancelled', by: platform.operator(), reason, ...(kill && { kill }) } as const;
  const result = await stopJob({ consul, deps, prefix, ref, home, signal }, wish);
  const view = await viewJob({ consul, prefix, ref }, { ...FIRST_CONTACT, signal });
  if (result.kind === 'none' || !view) throw noJob({ prefix, ref });
  if (result.stage.kind === 'done')
    throw new RunlockError('refused', `job ${jobText(ref)} was done already; nothing was changed`);
  const report = reportJob(view, { prefix, nowMs: deps.clock.now() });
  const data = { kind: result.kind, ...report };
  await print(platform, {
    json,
    data,
    text: (output) => renderJob(report, { ...output, now: deps.clock.now() }),
  });
  return 0;
}
