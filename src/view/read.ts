/** Reads what there is to see, once. */
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import { viewGroups } from './groups.ts';
import type { StatusReport } from './report.ts';
import { groupsBeside } from './runs.ts';
import type { ServiceScope } from './services.ts';
import { findHidden, joinFound, readSource, sourcesBeside, sourcesOf } from './sources.ts';
import type { Found, Scope, Source } from './sources.ts';

export interface Reading extends Scope {
  /** Wall-clock milliseconds. */
  readonly now: number;
  readonly signal: AbortSignal;
}

/**
 * Reads the prefix at once, or the named groups with those below them, those that their runs are in too, and the freezes
 * above them. A record that can't be read is a problem of its group, never the end of the whole status.
 * @throws RunlockError when Consul can't be reached, or refuses.
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
  return viewGroups(found, { prefix, groups, now });

  function besideOf({ entries }: Found): string[] {
    return groups.length === 0 ? [] : groupsBeside(options, entries, known);
  }
}

/**
 * The groups, with what this token may not see of them, and the health gates of services where they are asked for.
 * @throws RunlockError as `readGroups`.
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
