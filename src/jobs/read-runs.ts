/** Reads what the node's last run in each of some groups was. */
import type { Consul, RetryOptions } from '../consul/consul.ts';
import { groupKeys } from '../lock/keys.ts';
import type { RunRecord } from '../lock/records.ts';
import { readRecord } from '../lock/run-record.ts';
import type { Seen } from './transactions.ts';

export interface RunsOf {
  readonly consul: Consul;
  readonly prefix: string;
  readonly node: string;
  readonly groups: readonly string[];
}

/** Group by group; undefined: there is no record, or none that can be read. @throws RunlockError */
export const readRuns = (
  { consul, prefix, node, groups }: RunsOf,
  options: RetryOptions,
): Promise<(Seen<RunRecord> | undefined)[]> =>
  Promise.all(
    groups.map(async (group) => {
      const keys = groupKeys(prefix, group);
      const { entry } = await consul.get(keys.run(node), { ...options, rule: keys.rule });
      const value = entry && readRecord(entry);
      return value && { value, index: entry.modifyIndex };
    }),
  );
