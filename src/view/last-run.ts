/** A node's last run in a group, as commands show it. Pure. */
import type { Entry } from '../consul/consul.ts';
import { decodeRun, lastGoodOf } from '../lock/records.ts';
import type { Outcome } from '../lock/records.ts';

/** Times are ISO 8601 in UTC; names ending in Ms are milliseconds. */
export interface RunView {
  readonly node: string;
  readonly group: string;
  readonly outcome: Outcome;
  readonly exitCode?: number;
  readonly endedAt: string;
  /** When the node's last successful run ended. Absent: none is known. */
  readonly lastGoodAt?: string;
  readonly waitedMs: number;
  readonly ranMs: number;
  /** Base name. */
  readonly command: string;
  readonly slot: number;
  readonly run: string;
}

/** @throws RunlockError `incompatible`: the record can't be read. */
export function viewRun(group: string, entry: Entry): RunView {
  const record = decodeRun(entry);
  const { node, outcome, exitCode, command, slot, run, endedAt, waitedMs, ranMs } = record;
  const lastGoodAt = lastGoodOf(record);
  const code = exitCode === undefined ? {} : { exitCode };
  const good = lastGoodAt === undefined ? {} : { lastGoodAt };
  return { node, group, outcome, ...code, endedAt, ...good, waitedMs, ranMs, command, slot, run };
}
