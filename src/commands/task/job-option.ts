/** `task run --job`: options that the node's agent gives to the run of a job. */
import type { Option } from 'commander';
import { onLineAlone, option } from '../../cli/option.ts';
import { parsePath, usage } from '../../cli/values.ts';
import { isJobId, isPrincipal } from '../../jobs/keys.ts';
import type { JobRef } from '../../jobs/keys.ts';
import type { JobChoice } from '../../runner/options.ts';

export interface JobValues {
  readonly job?: JobRef;
  readonly stateDir?: string;
}

/** Not shown. The start of the job is noted in the agent's folder. */
export const jobOptions = (): Option[] => [
  onLineAlone(option('--job <principal/id>', 'with run: the job of the run', parseJob)).hideHelp(),
  onLineAlone(option('--state-dir <folder>', "with --job: the agent's folder", parsePath)).hideHelp(),
];

function parseJob(text: string): JobRef {
  const [principal = '', id = '', ...more] = text.split('/');
  if (more.length > 0 || !isPrincipal(principal) || !isJobId(id))
    throw usage(`--job '${text}' is not the name of a job; write PRINCIPAL/ID`);
  return { principal, id };
}

/** What the run of a task knows of its job. */
export type OfJob = Pick<JobChoice, 'ref' | 'stateFolder'>;

/** Undefined: the run is for no job. */
export function jobOf({ job, stateDir }: JobValues, dryRun: boolean): OfJob | undefined {
  if ((job === undefined) !== (stateDir === undefined)) throw usage('--job and --state-dir go together');
  if (job === undefined || stateDir === undefined) return undefined;
  if (dryRun) throw usage('--dry-run and --job exclude each other');
  return { ref: job, stateFolder: stateDir };
}
