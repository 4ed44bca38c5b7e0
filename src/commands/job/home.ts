/** Which group a job belongs to: only its request says it. */
import { FIRST_CONTACT } from '../../consul/consul.ts';
import type { Consul } from '../../consul/consul.ts';
import { RunlockError } from '../../errors.ts';
import { jobText, requestKeys } from '../../jobs/keys.ts';
import type { JobRef } from '../../jobs/keys.ts';
import { requestRule } from '../../jobs/read.ts';
import { decodeSpec } from '../../jobs/records.ts';
import { hint } from '../../text/suggested-command.ts';

export interface JobReading {
  readonly consul: Consul;
  readonly prefix: string;
  readonly ref: JobRef;
  readonly signal: AbortSignal;
}

/** Undefined: there is no such job. @throws RunlockError `forbidden`, naming the rule; `incompatible`. */
export async function findHome({ consul, prefix, ref, signal }: JobReading): Promise<string | undefined> {
  const key = requestKeys(prefix, ref.principal).spec(ref.id);
  const { entry } = await consul.get(key, { ...FIRST_CONTACT, signal, rule: requestRule(prefix) });
  return entry && decodeSpec(entry).home;
}

/** @throws RunlockError `config`: there is no such job. */
export async function homeOfJob(reading: JobReading): Promise<string> {
  const home = await findHome(reading);
  if (home === undefined) throw noJob(reading);
  return home;
}

export function noJob({ prefix, ref }: Pick<JobReading, 'prefix' | 'ref'>): RunlockError {
  return new RunlockError(
    'config',
    `there is no job ${jobText(ref)}; '${hint(prefix, 'job', 'list')}' lists them`,
  );
}
