/** What is known of a run that has ended: its record, and the claim that stays after it (docs/protocol.md, "Release"). */
import type { Entry } from '../consul/consul.ts';
import { untilDone } from '../consul/retry.ts';
import { assertNever, isTimeout, reasonOf } from '../errors.ts';
import type { RunContext } from './context.ts';
import { decodeRun, lastGoodOf } from './records.ts';
import type { Claim, ClaimState, Outcome, RunRecord } from './records.ts';
import { recordAlone } from './transactions.ts';
import { send } from '../consul/txn.ts';
import { holdFrom } from './decide.ts';

const RETRY_MS = 300;

/**
 * Records how a run ended whose slot it could not give back, unless a later run of its node is recorded already. Tried
 * again until `signal` aborts. Never throws: what can't be recorded is said, and changes nothing else.
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

/** Whether an end took effect after all: it wrote the run's record in the same transaction. */
export async function isRecorded(
  { consul, keys }: Pick<RunContext, 'consul' | 'keys'>,
  { node, run }: Pick<RunRecord, 'node' | 'run'>,
  limits: ReadLimits,
): Promise<boolean> {
  const { entry } = await consul.get(keys.run(node), { ...limits, rule: keys.rule });
  return entry !== undefined && readRecord(entry)?.run === run;
}

/** What is known of the node's last good run. What stands there and can't be read is no reason to keep a slot. */
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

/** Undefined: nobody can read it. */
export function readRecord(entry: Entry): RunRecord | undefined {
  try {
    return decodeRun(entry);
  } catch {
    return undefined;
  }
}

/**
 * Whether what stands there is the record of a later run of the node. Consul's indexes decide, no clock: a run that was
 * stopped for hours ends after the node's next one, by any clock. A later run got its claim after this one last knew its
 * own, and was recorded after that, so both indexes are larger. Of an earlier run that was recorded late only the
 * record's is; of one that came with an import from another cluster perhaps only the claim's.
 */
export function isLater(entry: Entry, { claimIndex = 0 }: RunRecord): boolean {
  return Math.min(entry.modifyIndex, readRecord(entry)?.claimIndex ?? Infinity) > claimIndex;
}

/** The claim that stays after a run that ended so; undefined where it goes. `nowMs`: the latest that it may be (`WallClock`). */
export function keptClaim(claim: Claim, { outcome, exitCode }: RunRecord, nowMs: number): Claim | undefined {
  const state = keptState(outcome);
  if (state === undefined || claim.hold === 'none') return undefined;
  // The command's own code would tell of a success.
  const why = outcome === 'unhealthy' ? { unhealthy: true as const } : exitCode !== undefined && { exitCode };
  return { ...claim, state, since: new Date(nowMs).toISOString(), ...why, ...holdFrom(claim.hold, nowMs) };
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
