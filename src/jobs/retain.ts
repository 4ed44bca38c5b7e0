/** Which jobs of a principal are removed when it starts another: those that are over, and old, or one of very many. */
import type { Entry } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import { isJobId, requestKeys } from './keys.ts';
import type { JobRef } from './keys.ts';
import { requestRule } from './read.ts';
import { decodeSpec } from './records.ts';
import { collectJob, tendJob } from './tend.ts';
import type { Collected, Tender } from './tend.ts';
import { viewJob } from './view.ts';

export interface Retention {
  /** The newest ones of a principal stay. */
  readonly jobs: number;
  /** But none that was asked for longer ago, in milliseconds. */
  readonly ageMs: number;
}

export const RETENTION: Retention = { jobs: 100, ageMs: 30 * 86_400_000 };

/** Looks at one start: each is a read of a whole job. The next start goes on. */
const MOST_LOOKS = 5;

/**
 * Jobs that may go, the oldest first. What can't be read stays: it may be a newer runlock's. Pure.
 * @param specs what stands below the principal's requests. @param nowMs the earliest time that it may be.
 */
export function oldJobs(
  specs: readonly Entry[],
  {
    folder,
    nowMs,
    retention: { jobs, ageMs },
  }: { readonly folder: string; readonly nowMs: number; readonly retention: Retention },
): readonly string[] {
  return [...specs]
    .sort((a, b) => b.createIndex - a.createIndex)
    .filter((entry, newer) => newer >= jobs || nowMs - askedMs(entry, nowMs) > ageMs)
    .map(({ key }) => key.slice(folder.length))
    .filter(isJobId)
    .reverse();
}

function askedMs(entry: Entry, otherwise: number): number {
  try {
    return Date.parse(decodeSpec(entry).at);
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    return otherwise;
  }
}

/**
 * Removes some of the principal's jobs that may go and are over. Another's start at the same time does the same, and each
 * removal is one transaction. Never throws: the next start tries again.
 * @returns how many it removed.
 */
export async function retainJobs(
  tender: Tender,
  { principal, id: own }: JobRef,
  retention: Retention = RETENTION,
): Promise<number> {
  const { consul, deps, prefix, signal } = tender;
  const folder = requestKeys(prefix, principal).spec('');
  let removed = 0;
  try {
    const { entries } = await consul.list(folder, { signal, rule: requestRule(prefix) });
    const old = oldJobs(entries, { folder, nowMs: deps.clock.earliest(), retention }).filter(
      (id) => id !== own,
    );
    // Not always the oldest: one that is never over would keep all others.
    const from = Math.floor(deps.random() * Math.max(1, old.length - MOST_LOOKS + 1));
    for (const id of old.slice(from, from + MOST_LOOKS))
      if ((await attempt(() => removeOrTend(tender, { principal, id }))) === 'removed') removed += 1;
  } catch {
    // Consul does not answer, or refuses: nothing is lost.
  }
  return removed;
}

/** One that is not over may be past its end, and nobody has looked at it: it goes at another start. */
async function removeOrTend(tender: Tender, ref: JobRef): Promise<Collected> {
  const result = await collectJob(tender, ref);
  if (result === 'removed') return result;
  const view = await viewJob({ ...tender, ref }, { signal: tender.signal });
  if (view) await tendJob(tender, view);
  return result;
}

/** One that can't be read, or may not be removed, keeps no other. */
async function attempt<T>(act: () => Promise<T>): Promise<T | undefined> {
  try {
    return await act();
  } catch (error) {
    if (isRunlockError(error, 'incompatible', 'forbidden', 'refused')) return undefined;
    throw error;
  }
}
