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
import { sourcesOfWaits, waitingRuns, wholePrefix } from './waits.ts';

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
  const found = await readFound(consul, options, limits);
  const report = viewGroups(found, { prefix, groups, now });
  if (groups.length === 0 || !mayHideCircles(found, options)) return report;
  // Whether runs wait for each other depends on all runs that could set a state, in whatever group they are.
  const all = await readFound(consul, { prefix, groups: [] }, limits);
  if (all.waits && !all.waits.isPartial) return viewGroups(all, { prefix, groups, now });
  // Without any wait the runs are gone by now, or hidden.
  const isHidden = all.waits !== undefined || (await findHidden(consul, { prefix, groups: [] }, signal));
  return isHidden ? { ...report, circlesNeed: wholePrefix(prefix).rule } : report;
}

/** Runs wait for each other, if no run of a group that was not read sets what one of them waits for. */
export function mayHideCircles(
  { waits, ...found }: Found,
  { prefix, groups, now }: Pick<Reading, 'prefix' | 'groups' | 'now'>,
): boolean {
  if (!waits?.isPartial) return false;
  const { instances, refused, unread, entries = found.entries } = waits;
  const whole = { ...found, waits: { instances, refused, unread, entries } };
  return viewGroups(whole, { prefix, groups, now }).circles !== undefined;
}

async function readFound(
  consul: Consul,
  { prefix, groups }: Scope,
  limits: { readonly signal: AbortSignal } & typeof FIRST_CONTACT,
): Promise<Found> {
  const read = async (sources: readonly Source[]) =>
    joinFound(await Promise.all(sources.map((source) => readSource(consul, { prefix, source }, limits))));
  let found = await read(sourcesOf({ prefix, groups }));
  const known: string[] = [];
  for (let beside = besideOf(found); beside.length > 0; beside = besideOf(found)) {
    known.push(...beside);
    found = joinFound([found, await read(sourcesBeside({ prefix, groups: beside }))]);
  }
  const sources = sourcesOfWaits(prefix, waitingRuns(prefix, found.entries));
  if (sources.length === 0) return found;
  const everything = groups.length === 0 ? found.entries : undefined;
  return { ...found, waits: await readWaits(consul, { prefix, sources, everything }, limits) };

  function besideOf({ entries }: Found): string[] {
    return groups.length === 0 ? [] : groupsBeside({ prefix, groups }, entries, known);
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
