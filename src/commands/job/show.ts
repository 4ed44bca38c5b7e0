/** `runlock job show` and `job list`. */
import { FIRST_CONTACT } from '../../consul/consul.ts';
import type { JobRef } from '../../jobs/keys.ts';
import { tendJob } from '../../jobs/tend.ts';
import { viewJob } from '../../jobs/view.ts';
import { renderJob, renderJobs } from '../../output/job.ts';
import { reportJob } from '../../view/job.ts';
import { readJobWaits } from '../../view/job-waits.ts';
import { readJobs } from '../../view/read-jobs.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import type { ConsulWays } from '../with-consul.ts';
import { noJob } from './home.ts';

interface ShowOptions {
  readonly prefix: string;
  readonly json: boolean;
  readonly ref: JobRef;
}

export async function show(ways: ConsulWays, options: ShowOptions, platform: Platform): Promise<number> {
  const { consul, deps, signal } = ways;
  const { prefix, json, ref } = options;
  const read = () => viewJob({ consul, prefix, ref }, { ...FIRST_CONTACT, signal });
  const first = await read();
  // Nobody controls a job: whoever looks stops one whose time is over, if this token may.
  const tended = first && (await tendJob({ ...ways, prefix }, first));
  const view = tended && tended.deeds.length > 0 ? await read() : first;
  if (!view) throw noJob(options);
  const now = deps.clock.now();
  const report = await readJobWaits(
    consul,
    reportJob(view, { prefix, nowMs: now, ...(tended && { gone: tended.sights.runs }) }),
    { now, signal },
  );
  const text = (output: Parameters<Parameters<typeof print>[1]['text']>[0]) =>
    renderJob(report, { ...output, now: deps.clock.now() });
  await print(platform, { json, data: report, text });
  return 0;
}

export async function list(
  { consul, deps, signal }: ConsulWays,
  { prefix, json }: Omit<ShowOptions, 'ref'>,
  platform: Platform,
): Promise<number> {
  const found = await readJobs(consul, { prefix, nowMs: deps.clock.now() }, { ...FIRST_CONTACT, signal });
  await print(platform, {
    json,
    data: found,
    text: (output) => renderJobs(found, { ...output, now: deps.clock.now() }),
  });
  return 0;
}
