/** Looks at the conditions of a trigger, with the marks by which it tells news (docs/adr/0046). */
import type { Consul, RetryOptions } from '../consul/consul.ts';
import { causesOf } from '../lock/causes.ts';
import type { Change } from '../lock/causes.ts';
import { groupKeys, parseKey } from '../lock/keys.ts';
import { readRecord } from '../lock/run-record.ts';
import type { WallClock } from '../platform/deps.ts';
import { mapFew } from './few.ts';
import { judge } from './judge.ts';
import type { Judged } from './judge.ts';
import { endsNeeded, sightOf } from './marks.ts';
import type { Ends, Sight } from './marks.ts';
import type { Condition } from './parse.ts';
import { look } from './read.ts';
import { sourcesOf } from './sources.ts';

export interface Sighting {
  readonly consul: Consul;
  readonly clock: WallClock;
  readonly prefix: string;
}

/** Once, by one moment, and with what led to each. @throws RunlockError `forbidden`, naming the rule; a transient fault. */
export async function lookForNews(
  { consul, clock, prefix }: Sighting,
  conditions: readonly Condition[],
  limits: RetryOptions,
): Promise<readonly Sight[]> {
  if (conditions.length === 0) return [];
  const place = { prefix, groups: [] };
  const world = await look(consul, { sources: sourcesOf(conditions, place), proven: new Set() }, limits);
  const judged = judge(conditions, world, { ...place, nowMs: clock.earliest() });
  const ends = await readEnds({ consul, prefix }, judged, { ...limits, isWhole: true });
  return judged.map((one) => sightOf(one, ends));
}

/**
 * The last ends of runs in the groups that are idle: Consul keeps nothing else of a group that was busy and is idle again.
 * `isWhole`: with what led to them, which reads all last runs of the group.
 */
export async function readEnds(
  { consul, prefix }: Pick<Sighting, 'consul' | 'prefix'>,
  judged: readonly Judged[],
  { isWhole, ...limits }: RetryOptions & { readonly isWhole: boolean },
): Promise<ReadonlyMap<string, Ends>> {
  const idle = judged.filter(({ condition, holds }) => holds !== condition.not);
  const groups = endsNeeded(idle.map(({ condition }) => condition));
  const read = await mapFew(groups, async (group): Promise<readonly [string, Ends]> => {
    const runs = groupKeys(prefix, group).run('');
    const { names, index } = await consul.indexOf(runs, limits);
    // Where no run ever ended, this is the index of the last write anywhere.
    if (names.length === 0) return [group, NO_ENDS];
    return [group, { index, changes: isWhole ? await changesIn({ consul, prefix }, runs, limits) : [] }];
  });
  return new Map(read);
}

const NO_ENDS: Ends = { index: 0, changes: [] };

async function changesIn(
  { consul, prefix }: Pick<Sighting, 'consul' | 'prefix'>,
  runs: string,
  limits: RetryOptions,
): Promise<readonly Change[]> {
  const rule = `key_prefix "${runs}" { policy = "read" }`;
  const { entries } = await consul.list(runs, { ...limits, rule });
  const last = entries
    .filter(({ key }) => parseKey(prefix, key)?.key.kind === 'run')
    .reduce<(typeof entries)[number] | undefined>(
      (a, b) => (a && a.modifyIndex > b.modifyIndex ? a : b),
      undefined,
    );
  const record = last && readRecord(last);
  return last && record ? [{ index: last.modifyIndex, ...causesOf(record) }] : [];
}
