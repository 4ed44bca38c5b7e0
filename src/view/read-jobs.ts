/** Reads all jobs, for a list: of each what is asked, where it is, and how many targets ended how. */
import type { Consul, Entry, RetryOptions } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import { isJobId, isPrincipal, jobText } from '../jobs/keys.ts';
import type { JobRef } from '../jobs/keys.ts';
import { placeOf, requestRule } from '../jobs/read.ts';
import { decodeSpec, decodeStage, decodeTally } from '../jobs/records.ts';
import type { Spec } from '../jobs/documents.ts';
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
  /** How many targets belong to its stages. */
  readonly total: number;
  /** Of the targets that have ended: how many in which state. */
  readonly states: JobReport['states'];
  readonly by: string;
  readonly askedAt: string;
  readonly until: string;
  readonly reason?: string;
}

/** Jobs in one transaction, which takes 64 reads. */
const AT_ONCE = 32;

/** @throws RunlockError `forbidden`, naming the rule: what may not be read never counts as no jobs. */
export async function readJobs(
  consul: Consul,
  { prefix, nowMs }: { readonly prefix: string; readonly nowMs: number },
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
      // Whether runs of a stopped job are under way only its targets say.
      const state = stage && stateOf(stage, true);
      jobs.push({ ...summaryOf(ref, spec), ...(state && { state }), states: tally?.states ?? {} });
    }
  }
  jobs.sort((a, b) => Date.parse(b.askedAt) - Date.parse(a.askedAt) || (a.job < b.job ? -1 : 1));
  return { v: 1, prefix, at: new Date(nowMs).toISOString(), jobs, problems };
}

const summaryOf = (ref: JobRef, { task, home, stages, by, at, until, reason }: Spec) => ({
  job: jobText(ref),
  task,
  home,
  total: stages.reduce((sum, size) => sum + size, 0),
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
