/**
 * The stage of a job, followed from before a run's ticket to the end of its command: how the run hears of a stop, and
 * of who watches its output. Both by one blocking query, which wakes for nothing else.
 */
import type { Entry } from '../consul/consul.ts';
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { lookPast } from '../consul/watch.ts';
import { isRunlockError } from '../errors.ts';
import type { Stage } from '../jobs/documents.ts';
import { jobText } from '../jobs/keys.ts';
import type { JobRef } from '../jobs/keys.ts';
import { jobReadRule, placeOf } from '../jobs/read.ts';
import { decodeStage, decodeWatching } from '../jobs/records.ts';
import type { RunOf } from './job-end.ts';
import type { ExecDeps } from './options.ts';

/** Its own watch is for promptness only: nothing is wrong if it hears late. */
const AGAIN: Growth = { shortestMs: 500, longestMs: 30_000 };

interface Followed {
  readonly of: RunOf;
  /** The index of the stage as it is known already. */
  readonly from: number;
  readonly signal: AbortSignal;
  /** Called at the start and after each change. `untilMs`: somebody watches until then, by the wall clock; 0: nobody. */
  readonly watched: (untilMs: number) => void;
}

/** Calls `hear` after each change of the stage (undefined: there is none any more), until `signal` aborts. Never rejects. */
export async function followStage(
  { clock, random }: Pick<ExecDeps, 'clock' | 'random'>,
  { of, from, signal, watched }: Followed,
  hear: (stage: Stage | undefined) => Promise<void>,
): Promise<void> {
  const { consul, prefix, home, ref } = of;
  const key = placeOf(prefix, home, ref).keys.stage;
  const options = { signal, rule: jobReadRule(prefix, home), retryForMs: 0 };
  let stageIndex: number | undefined = from;
  // The first look is at once: somebody may be watching already.
  let seenIndex = 0;
  for (let failures = 0; !signal.aborted;) {
    try {
      const seen = await lookPast((past) => consul.list(key, { ...past, ...options }), seenIndex);
      const entry = seen.entries.find((each) => each.key === key);
      watched(watchedUntilMs(seen.entries.filter((each) => each.key.startsWith(`${key}/watched/`))));
      if (entry?.modifyIndex !== stageIndex) await hear(stageIn(entry));
      stageIndex = entry?.modifyIndex;
      seenIndex = seen.index;
      failures = 0;
    } catch {
      await clock.sleep(growingMs(failures++, AGAIN, random), { signal }).catch(() => undefined);
    }
  }
}

/** A mark that can't be read is nobody's. */
export function watchedUntilMs(marks: readonly Entry[]): number {
  const untils = marks.map((mark) => {
    try {
      return Date.parse(decodeWatching(mark).until);
    } catch (error) {
      if (!isRunlockError(error, 'incompatible')) throw error;
      return 0;
    }
  });
  return Math.max(0, ...untils);
}

const stageIn = (entry: Entry | undefined): Stage | undefined => entry && decodeStage(entry);

/** Why a job was stopped, for people. */
export function stoppedText(ref: JobRef, { why, by, reason }: Extract<Stage, { kind: 'stopped' }>): string {
  const cause = reason === undefined ? '' : ` (${reason})`;
  switch (why) {
    case 'cancelled':
      return `${by ?? 'an operator'} cancelled job ${jobText(ref)}${cause}`;
    case 'failures':
      return `job ${jobText(ref)} was stopped after too many failures`;
    case 'unproven':
      return `job ${jobText(ref)} was stopped: nothing succeeded in a stage before`;
    case 'expired':
      return `job ${jobText(ref)} is past its end`;
    case 'gone':
      return `job ${jobText(ref)} was stopped: its request is gone`;
  }
}
