/** `task run --job`: options that the node's agent gives to the run of a job. */
import type { Option } from 'commander';
import { onLineAlone, option } from '../../cli/option.ts';
import { parseFlag, parsePath, usage, wholeNumber } from '../../cli/values.ts';
import { isJobId, isPrincipal } from '../../jobs/keys.ts';
import type { JobRef } from '../../jobs/keys.ts';
import { MOST_RUNNING } from '../../jobs/records.ts';
import type { JobChoice } from '../../runner/options.ts';

export interface JobValues {
  readonly job?: JobRef;
  readonly noop: boolean;
  readonly maxRunning?: number;
  readonly stateDir?: string;
}

/** Not shown. The start of the job is noted in the agent's folder. */
export const jobOptions = (): Option[] => [
  onLineAlone(option('--job <principal/id>', 'with run: the job of the run', parseJob)).hideHelp(),
  onLineAlone(option('--noop', 'with --job: only try', parseFlag, false)).hideHelp(),
  onLineAlone(
    option(
      '--max-running <n>',
      "with --job: how many of the job's targets may run at once",
      wholeNumber(1, MOST_RUNNING),
    ),
  ).hideHelp(),
  onLineAlone(option('--state-dir <folder>', "with --job: the agent's folder", parsePath)).hideHelp(),
];

function parseJob(text: string): JobRef {
  const [principal = '', id = '', ...more] = text.split('/');
  if (more.length > 0 || !isPrincipal(principal) || !isJobId(id))
    throw usage(`--job '${text}' is not the name of a job; write PRINCIPAL/ID`);
  return { principal, id };
}

/** What the run of a task knows of its job. */
export type OfJob = Pick<JobChoice, 'ref' | 'stateFolder' | 'noop' | 'maxRunning'>;

/** Undefined: the run is for no job. */
export function jobOf({ job, stateDir, noop, maxRunning }: JobValues, dryRun: boolean): OfJob | undefined {
  if ((job === undefined) !== (stateDir === undefined)) throw usage('--job and --state-dir go together');
  if (job === undefined && (noop || maxRunning !== undefined))
    throw usage("--noop and --max-running need --job; for a job they are options of 'runlock job start'");
  if (job === undefined || stateDir === undefined) return undefined;
  if (dryRun) throw usage('--dry-run and --job exclude each other');
  return { ref: job, stateFolder: stateDir, noop, ...(maxRunning !== undefined && { maxRunning }) };
}
