/** Follows a job, and tells each change: a line, or one JSON object a line. */
import { isJobOver, reportJob } from '../../view/job.ts';
import { readJobWaits } from '../../view/job-waits.ts';
import type { JobReport } from '../../view/job.ts';
import { changesOf } from '../../view/job-changes.ts';
import type { JobChange } from '../../view/job-changes.ts';
import { followJob } from '../../jobs/follow.ts';
import type { Follower } from '../../jobs/follow.ts';
import { changeText } from '../../output/job.ts';
import { paint } from '../../text/style.ts';
import { createOutput } from '../../platform/terminal.ts';
import type { Platform } from '../platform.ts';
import { printJsonLine, printProse } from '../print.ts';

/** Hears each report. */
export type Tell = (report: JobReport) => Promise<void>;

/** Until `isEnough`; by default until nothing of the job happens any more. @throws RunlockError as `followJob`. */
export async function follow(
  looker: Follower,
  home: string,
  { tell, isEnough = isJobOver }: { readonly tell: Tell; readonly isEnough?: (report: JobReport) => boolean },
): Promise<JobReport> {
  return followJob(looker, home, async (view) => {
    const now = looker.deps.clock.now();
    const stored = reportJob(view, { prefix: looker.prefix, nowMs: now });
    const report = await readJobWaits(looker.consul, stored, { now, signal: looker.signal });
    await tell(report);
    return isEnough(report) ? report : undefined;
  });
}

/** Tells what is new since the last report. `json`: as lines of JSON. */
export function tellChanges(platform: Platform, json: boolean): Tell {
  let before: JobReport | undefined;
  return async (report) => {
    const changes = changesOf(before, report);
    before = report;
    for (const change of changes) {
      if (json) await printJsonLine(platform, change);
      else await printProse(platform, `${lineOf(change, platform)}\n`);
    }
  };
}

const BAD = ['failed', 'unhealthy', 'timed-out', 'lost'];

function lineOf(change: JobChange, { env, stdout, deps: { clock } }: Platform): string {
  const { color } = createOutput({ env, isTTY: stdout.isTTY });
  const isBad = change.event === 'target' && BAD.includes(change.state);
  return paint(changeText(change, clock.now()), isBad ? 'red' : undefined, color);
}
