/** Reads the data of a report once. */
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import { viewGroups } from './groups.ts';
import type { StatusReport } from './report.ts';
import { groupsBeside } from './runs.ts';
import type { ServiceScope } from './services.ts';
import { findHidden, joinFound, readSource, sourcesBeside, sourcesOf } from './sources.ts';
import type { Found, Scope, Source } from './sources.ts';
import { readWaits } from './read-waits.ts';
import { sourcesOfWaits, waitingRuns } from './waits.ts';

export interface Reading extends Scope {
  /** Wall-clock milliseconds. */
  readonly now: number;
  readonly signal: AbortSignal;
}

/**
 * Reads the whole prefix, or the named groups, the groups below them, further groups of their runs, and the freezes
 * above. An unreadable record becomes a problem of its group, and does not fail the status.
 * @throws RunlockError if Consul can't be reached, or denies access.
 */
export async function readGroups(consul: Consul, options: Reading): Promise<StatusReport> {
  const { prefix, groups, now, signal } = options;
  const limits = { signal, ...FIRST_CONTACT };
  const read = async (sources: readonly Source[]) =>
    joinFound(await Promise.all(sources.map((source) => readSource(consul, { prefix, source }, limits))));
  let found = await read(sourcesOf(options));
  const known: string[] = [];
  for (let beside = besideOf(found); beside.length > 0; beside = besideOf(found)) {
    known.push(...beside);
    found = joinFound([found, await read(sourcesBeside({ prefix, groups: beside }))]);
  }
  const sources = sourcesOfWaits(prefix, waitingRuns(prefix, found.entries));
  if (sources.length === 0) return viewGroups(found, { prefix, groups, now });
  const everything = groups.length === 0 ? found.entries : undefined;
  const waits = await readWaits(consul, { prefix, sources, everything }, limits);
  return viewGroups({ ...found, waits }, { prefix, groups, now });

  function besideOf({ entries }: Found): string[] {
    return groups.length === 0 ? [] : groupsBeside(options, entries, known);
  }
}

/**
 * Reads the groups, which of them this token may not see, and the health gates of services if asked for.
 * @throws RunlockError like `readGroups`.
 */
export async function readReport(
  consul: Consul,
  { gate, ...options }: Reading & { readonly gate?: ServiceScope | undefined },
): Promise<StatusReport> {
  const { prefix, groups, signal } = options;
  const [report, hidden] = await Promise.all([
    readGroups(consul, options),
    findHidden(consul, { prefix, groups }, signal),
  ]);
  const seen = { ...report, ...(hidden !== undefined && { hidden }) };
  if (!gate) return seen;
  const { statusServices } = await import('./services.ts');
  return { ...seen, services: await statusServices(consul, gate, signal) };
}
