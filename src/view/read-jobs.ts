/** Reads all jobs, for a list: of each what is asked, where it is, and how many targets ended how. */
import type { Consul, Entry, RetryOptions } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import { isJobId, isPrincipal, jobText } from '../jobs/keys.ts';
import type { JobRef } from '../jobs/keys.ts';
import { placeOf, requestRule } from '../jobs/read.ts';
import { decodeSpec, decodeStage, decodeTally } from '../jobs/records.ts';
import type { Spec } from '../jobs/documents.ts';
import { viewJob } from '../jobs/view.ts';
import type { JobView } from '../jobs/view.ts';
import { stateOf } from './job.ts';
import type { JobReport, JobState } from './job.ts';

/** What `job list --json` prints. Times are ISO 8601 in UTC. */
export interface JobsReport {
  readonly v: 1;
  readonly prefix: string;
  readonly at: string;
  /** The newest first. */
  readonly jobs: readonly JobSummary[];
  /** Jobs that can't be read, and why. */
  readonly problems: readonly string[];
}

export interface JobSummary {
  readonly job: string;
  readonly task: string;
  readonly home: string;
  /** Absent: this token may not read the job's group, or the job was just removed. A stopped job may still have runs. */
  readonly state?: JobState;
  /** How many targets it has. */
  readonly total: number;
  /** How many targets are in which state; together they are all. Empty if `state` is absent. */
  readonly states: JobReport['states'];
  readonly by: string;
  readonly askedAt: string;
  readonly until: string;
  readonly reason?: string;
}

/** Jobs in one transaction, which takes 64 reads. */
const AT_ONCE = 32;
/** Jobs that are read whole, at the same time. */
const VIEWS_AT_ONCE = 8;

interface JobsReading {
  readonly prefix: string;
  readonly nowMs: number;
  /** False: of jobs that are not done no targets are counted, which takes a read of each. */
  readonly isCounted?: boolean;
}

/** @throws RunlockError `forbidden`, naming the rule: what may not be read never counts as no jobs. */
export async function readJobs(
  consul: Consul,
  { prefix, nowMs, isCounted = true }: JobsReading,
  options: RetryOptions,
): Promise<JobsReport> {
  const problems: string[] = [];
  const attempt = <T>(decode: () => T): T | undefined => {
    try {
      return decode();
    } catch (error) {
      if (!isRunlockError(error, 'incompatible')) throw error;
      problems.push(error.message);
      return undefined;
    }
  };
  const found = (await readSpecs(consul, prefix, options)).flatMap(({ ref, entry }) => {
    const spec = attempt(() => decodeSpec(entry));
    return spec ? [{ ref, spec }] : [];
  });
  const jobs: JobSummary[] = [];
  const open: { readonly ref: JobRef; readonly summary: JobSummary }[] = [];
  for (let from = 0; from < found.length; from += AT_ONCE) {
    const some = found.slice(from, from + AT_ONCE);
    const keys = some.map(({ ref, spec }) => placeOf(prefix, spec.home, ref).keys);
    const reads = keys.flatMap(({ stage, tally }) => [stage, tally]);
    const entries = await consul.readAll(
      reads.map((key) => ({ verb: 'get-tree', key })),
      options,
    );
    const byKey = new Map(entries.map((entry) => [entry.key, entry]));
    for (const [i, { ref, spec }] of some.entries()) {
      const [stageEntry, tallyEntry] = [byKey.get(keys[i]?.stage ?? ''), byKey.get(keys[i]?.tally ?? '')];
      const stage = stageEntry && attempt(() => decodeStage(stageEntry));
      const tally = tallyEntry && attempt(() => decodeTally(tallyEntry));
      const summary = summaryOf(ref, spec);
      if (stage && tally && (stage.kind === 'done' || !isCounted)) {
        const counted = stage.kind === 'done' && { total: sumOf(tally.states), states: tally.states };
        jobs.push({ ...summary, state: stateOf(stage, true), ...counted });
      } else open.push({ ref, summary });
    }
  }
  for (let from = 0; from < open.length; from += VIEWS_AT_ONCE)
    jobs.push(
      ...(await Promise.all(
        open.slice(from, from + VIEWS_AT_ONCE).map(({ ref, summary }) => countOne(ref, summary)),
      )),
    );
  jobs.sort((a, b) => Date.parse(b.askedAt) - Date.parse(a.askedAt) || (a.job < b.job ? -1 : 1));
  return { v: 1, prefix, at: new Date(nowMs).toISOString(), jobs, problems };

  /** Targets that have not ended are counted one by one, and what a stop has made of them is written nowhere. */
  async function countOne(ref: JobRef, summary: JobSummary): Promise<JobSummary> {
    try {
      const view = isCounted ? await viewJob({ consul, prefix, ref }, options) : undefined;
      return view
        ? { ...summary, state: stateOf(view.job.stage.value, view.isOver), ...totalsOf(view) }
        : summary;
    } catch (error) {
      if (isRunlockError(error, 'incompatible')) problems.push(error.message);
      else if (!isRunlockError(error, 'forbidden')) throw error;
      return summary;
    }
  }
}

const sumOf = (states: JobReport['states']) => Object.values(states).reduce((sum, each) => sum + each, 0);

/** Targets that a starter has not written yet are queued, as those that it has. */
function totalsOf({ job, targets, counts, isComplete }: JobView): Pick<JobSummary, 'total' | 'states'> {
  if (isComplete) return { total: targets.length, states: counts };
  const total = sumOf(job.tally.value.states) + job.spec.value.stages.reduce((sum, size) => sum + size, 0);
  return { total, states: { ...counts, queued: (counts.queued ?? 0) + total - targets.length } };
}

const summaryOf = (ref: JobRef, { task, home, stages, by, at, until, reason }: Spec): JobSummary => ({
  job: jobText(ref),
  task,
  home,
  total: stages.reduce((sum, size) => sum + size, 0),
  states: {},
  by,
  askedAt: at,
  until,
  ...(reason !== undefined && { reason }),
});

/** Only the requests themselves: their targets and pointers may be thousands. */
async function readSpecs(
  consul: Consul,
  prefix: string,
  options: RetryOptions,
): Promise<{ readonly ref: JobRef; readonly entry: Entry }[]> {
  const root = `${prefix}/.requests/`;
  const asked = { ...options, rule: requestRule(prefix) };
  const { names } = await consul.indexOf(root, asked);
  // A listing hides what this token may not read; a read of a single key is refused.
  await consul.get(`${root}.may-read`, asked);
  const principals = names.map((name) => name.slice(root.length).replace(/\/$/, '')).filter(isPrincipal);
  const lists = await Promise.all(
    principals.map(async (principal) => {
      const below = `${root}${principal}/spec/`;
      const { entries } = await consul.list(below, asked);
      return entries.flatMap((entry) => {
        const id = entry.key.slice(below.length);
        return isJobId(id) ? [{ ref: { principal, id }, entry }] : [];
      });
    }),
  );
  return lists.flat();
}
