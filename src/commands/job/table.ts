/** A job on a terminal: a table that is drawn anew with each change, and stays as the job ended. */
import type { Follower } from '../../jobs/follow.ts';
import { renderJob } from '../../output/job.ts';
import { renderJobScreen } from '../../output/job-screen.ts';
import type { JobReport } from '../../view/job.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { keepShowing, showScreen } from '../screen.ts';
import { follow } from './tell.ts';

/** Of a job that is over; 'job show' has all. */
const MOST_TARGETS = 50;

/** @throws RunlockError as `follow`. */
export async function showToEnd(looker: Follower, home: string, platform: Platform): Promise<JobReport> {
  const { clock } = looker.deps;
  const left = new AbortController();
  const signal = AbortSignal.any([looker.signal, left.signal]);
  const view = showScreen<JobReport>(
    { consul: looker.consul, hearsKeys: false, frame: renderJobScreen },
    platform,
  );
  let report: JobReport;
  let followed: Promise<JobReport> | undefined;
  try {
    report = await keepShowing<JobReport, JobReport>({
      clock,
      view,
      signal,
      platform,
      leave: () => left.abort(),
      follow: (changed) => {
        const tell = (now: JobReport) => {
          changed(now);
          return Promise.resolve();
        };
        return (followed = follow({ ...looker, signal }, home, { tell }));
      },
    });
  } finally {
    left.abort();
    await view.close();
    // It still says in Consul that nobody watches here any more.
    await followed?.catch(() => undefined);
  }
  const text = (output: Parameters<Parameters<typeof print>[1]['text']>[0]) =>
    renderJob(report, { ...output, now: clock.now(), most: MOST_TARGETS });
  await print(platform, { json: false, data: report, text });
  return report;
}
