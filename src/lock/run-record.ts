/** What a run leaves when it ends: its record, and sometimes a claim (docs/protocol.md, "Release"). */
import type { Entry } from '../consul/consul.ts';
import { untilDone } from '../consul/retry.ts';
import { assertNever, isTimeout, reasonOf } from '../errors.ts';
import type { RunContext } from './context.ts';
import { ended, decodeRun, lastGoodOf } from './records.ts';
import type { Claim, ClaimState, Outcome, RunRecord } from './records.ts';
import { recordAlone } from './transactions.ts';
import { send } from '../consul/txn.ts';
import { holdFrom } from './decide.ts';

const RETRY_MS = 300;

/**
 * Records the end of a run that could not release its slot, unless a later run of its node is recorded already. Retries
 * until `signal` aborts. Never throws: a failure is only logged.
 */
export async function recordEnd(
  { consul, deps, keys }: Pick<RunContext, 'consul' | 'deps' | 'keys'>,
  record: RunRecord,
  signal: AbortSignal,
): Promise<void> {
  const key = keys.run(record.node);
  const options = { signal, rule: keys.rule, timeoutMs: 5_000 };
  let refused = 'no answer';
  try {
    await untilDone(deps.clock, { signal, pauseMs: () => RETRY_MS }, async () => {
      const { entry } = await consul.get(key, { ...options, retryForMs: 0 });
      if (entry && (readRecord(entry)?.run === record.run || isLater(entry, record))) return true;
      const result = await send(consul, recordAlone(keys, record, entry?.modifyIndex ?? 0), options);
      if (result.kind === 'done') return true;
      refused = result.why;
      return undefined;
    });
  } catch (error) {
    const fault = isTimeout(error) ? refused : reasonOf(error);
    const { node, run } = record;
    deps.emit({ event: 'not-recorded', group: keys.group, node, run, detail: { fault } });
  }
}

interface ReadLimits {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  readonly retryForMs?: number;
}

/** Whether a release without an answer took effect: the same transaction wrote the run's record. */
export async function isRecorded(
  { consul, keys }: Pick<RunContext, 'consul' | 'keys'>,
  { node, run }: Pick<RunRecord, 'node' | 'run'>,
  limits: ReadLimits,
): Promise<boolean> {
  const { entry } = await consul.get(keys.run(node), { ...limits, rule: keys.rule });
  return entry !== undefined && readRecord(entry)?.run === run;
}

/** When the node's last successful run ended. Ignores an unreadable record, because it is no reason to keep a slot. */
export async function readLastGood(
  { consul, keys }: Pick<RunContext, 'consul' | 'keys'>,
  node: string,
  limits: ReadLimits,
): Promise<Pick<RunRecord, 'lastGoodAt'>> {
  const { entry } = await consul.get(keys.run(node), { ...limits, rule: keys.rule });
  const record = entry && readRecord(entry);
  const lastGoodAt = record && lastGoodOf(record);
  return lastGoodAt === undefined ? {} : { lastGoodAt };
}

/** Decodes a run record; undefined: the record is unreadable. */
export function readRecord(entry: Entry): RunRecord | undefined {
  try {
    return decodeRun(entry);
  } catch {
    return undefined;
  }
}

/**
 * Whether `entry` is the record of a later run of the node. Compares Consul's indexes, not times: a run that was
 * stopped for hours ends after the node's next run by any clock. A later run got its claim after this run last knew
 * its own, and was recorded after that, so both of its indexes are larger. For an earlier run that was recorded late,
 * only the index of the record is larger; for a record imported from another cluster, perhaps only the index of the
 * claim.
 */
export function isLater(entry: Entry, { claimIndex = 0 }: RunRecord): boolean {
  return Math.min(entry.modifyIndex, readRecord(entry)?.claimIndex ?? Infinity) > claimIndex;
}

/**
 * The claim that stays after a run with this outcome; undefined: none stays. `nowMs`: the latest possible time now
 * (`WallClock`).
 */
export function keptClaim(claim: Claim, { outcome, exitCode }: RunRecord, nowMs: number): Claim | undefined {
  const state = keptState(outcome);
  if (state === undefined || claim.hold === 'none') return undefined;
  // Leave the command's exit code out for an unhealthy run, because the code would suggest success.
  const why = outcome === 'unhealthy' ? { unhealthy: true as const } : exitCode !== undefined && { exitCode };
  const since = new Date(nowMs).toISOString();
  return { ...ended(claim), state, since, ...why, ...holdFrom(claim.hold, nowMs) };
}

function keptState(outcome: Outcome): ClaimState | undefined {
  switch (outcome) {
    case 'succeeded':
    case 'evicted':
      return undefined;
    case 'failed':
    case 'unhealthy':
    case 'timed-out':
    case 'lost':
      return 'failed';
    case 'interrupted':
    case 'rebooting':
      return outcome;
    default:
      return assertNever(outcome);
  }
}
