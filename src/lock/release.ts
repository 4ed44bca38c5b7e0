/** Giving a slot back at the end of a run (docs/protocol.md, "Release"). */
import { isTransient, isWorthAgain } from '../consul/consul.ts';
import { assertNever, isRunlockError } from '../errors.ts';
import { nodeMark, returnedClaim, timestamp } from './context.ts';
import { joinLeft } from './records.ts';
import type { Claim, LeftOn, Outcome, RunRecord } from './records.ts';
import { lastWord } from '../consul/retry.ts';
import { isRecorded, keptClaim, readLastGood, recordEnd } from './run-record.ts';
import { leaveSession, openSession } from '../consul/session.ts';
import { isLeft, readSlots, standing } from './decide.ts';
import { release, takeBack } from './transactions.ts';
import { send, writtenIndex } from '../consul/txn.ts';
import type { Grant } from './head-of-queue.ts';

/** How the run ended. */
export interface Ending {
  readonly outcome: Outcome;
  readonly exitCode?: number;
  readonly waitedMs: number;
  readonly ranMs: number;
  /** What the run leaves in maintenance. */
  readonly leftOn?: LeftOn;
}

export type GivenBack =
  /** `kept`: the claim that goes on keeping others out. */
  | { readonly kind: 'released'; readonly kept?: Claim }
  /** It is this run's no longer. */
  | { readonly kind: 'nothing' }
  /** Consul could not be reached in time: these keys stay behind. `stuck`: no run and no release can clear them, and `why` says what can. */
  | {
      readonly kind: 'stays';
      readonly keys: readonly string[];
      readonly why: string;
      readonly stuck?: true;
    };

/** Longer than an election takes (12.7 to 17.5 s were measured). */
const DEADLINE_MS = 30_000;
const RETRY_MS = 300;
/** For the session, once nothing more depends on it. */
export const LEAVE = { retryForMs: 2_000 };
const LONGEST_RETRY_MS = 5_000;
/** One answer of a proxy is no reason to forget the last good run. */
const ODD_RETRY_MS = 1_000;

/** Gives the slot back, with its own deadline; never throws. */
export async function giveBack(holding: Grant, ending: Ending & { ttlMs: number }): Promise<GivenBack> {
  const { consul, deps, keys } = holding.context;
  const signal = AbortSignal.timeout(DEADLINE_MS);
  let record: RunRecord | undefined;
  let now: Grant = holding;
  let result: GivenBack | undefined;
  let why = 'no answer';
  /** The key that another session holds. */
  let blocker: string | undefined;
  let refusals = 0;
  while (!result) {
    try {
      record ??= await withLastGood(holding, toRecord(holding, ending), signal);
      const { ttlMs, leftOn } = ending;
      const step = await releaseOnce(now, { record: under(now, record), leftOn, ttlMs, signal });
      if (step.kind === 'holding') now = step.holding;
      else result = step;
      if (result) break;
      why = step.kind === 'holding' && step.fault !== undefined ? step.fault : why;
      blocker = step.kind === 'holding' ? step.blocker : undefined;
      // Each try is a write.
      refusals = blocker === undefined ? 0 : refusals + 1;
      await deps.clock.sleep(Math.min(LONGEST_RETRY_MS, RETRY_MS * 2 ** refusals), { signal });
    } catch (error) {
      why = blocker === undefined ? lastWord(consul, error, why) : heldBy(blocker);
      if (signal.aborted || !isWorthAgain(error)) {
        const isStuck = blocker !== undefined || isRunlockError(error, 'incompatible');
        const stays = [keys.owner(holding.slot)];
        result = { kind: 'stays', keys: stays, why, ...(isStuck && { stuck: true }) };
        break;
      }
      await deps.clock.sleep(RETRY_MS, { signal }).catch(() => undefined);
    }
  }
  // Whatever became of the slot, the run has ended. A release has recorded it already.
  if (result.kind !== 'released' && record && !signal.aborted)
    await recordEnd(now.context, under(now, record), signal);
  await leaveSession(now.context, now.session, LEAVE);
  return result;
}

/** Only a hand takes it. */
const heldBy = (key: string) => `another session holds ${key}; 'consul kv delete ${key}' lets go of it`;

function toRecord({ context, slot }: Grant, { outcome, exitCode, waitedMs, ranMs }: Ending): RunRecord {
  const { id, node, command } = context.run;
  const code = exitCode === undefined ? {} : { exitCode };
  const figures = { waitedMs: Math.round(waitedMs), ranMs: Math.round(ranMs) };
  return { node, run: id, outcome, ...code, command, slot, endedAt: timestamp(context), ...figures };
}

const under = ({ owner }: Grant, record: RunRecord): RunRecord => ({ ...record, claimIndex: owner.index });

/**
 * A good run speaks for itself. Any other keeps what was known of the last good one, which costs these runs alone a read.
 * @throws after a transient fault.
 */
async function withLastGood({ context }: Grant, record: RunRecord, signal: AbortSignal): Promise<RunRecord> {
  if (record.outcome === 'succeeded') return record;
  try {
    const limits = { signal, timeoutMs: 5_000, retryForMs: ODD_RETRY_MS };
    return { ...record, ...(await readLastGood(context, record.node, limits)) };
  } catch (error) {
    if (isTransient(error)) throw error;
    // What stands there can't be read: no reason to keep the slot.
    return record;
  }
}

type Once =
  | GivenBack
  /** `fault`: what the release was answered with, where that was no answer to it. `blocker`: a key that another session holds. */
  | {
      readonly kind: 'holding';
      readonly holding: Grant;
      readonly fault?: string;
      readonly blocker?: string;
    };

interface Release {
  readonly record: RunRecord;
  readonly leftOn: LeftOn | undefined;
  readonly ttlMs: number;
  readonly signal: AbortSignal;
}

/** One try; answers with what is held now where it has to be tried again. */
async function releaseOnce(holding: Grant, { record, leftOn, ttlMs, signal }: Release): Promise<Once> {
  const { context, session, slot, owner } = holding;
  const { consul, deps, keys, run } = context;
  const options = { signal, rule: keys.rule, timeoutMs: 5_000 };
  if (session.lost.aborted) {
    const opened = await openSession(context, { name: `runlock ${keys.group}`, ttlMs, signal });
    return { kind: 'holding', holding: { ...holding, session: opened } };
  }
  const seat = { keys, session: session.id, slot };
  const maintenance = joinLeft(owner.claim.maintenance, leftOn);
  const claim: Claim = {
    ...owner.claim,
    state: 'running',
    node: run.node,
    ...(maintenance && { maintenance }),
  };
  const goes = record.outcome === 'interrupted' && run.releaseOnSignal === true;
  const kept = goes ? undefined : keptClaim(claim, record, deps.clock.latest());
  let fault: string | undefined;
  try {
    const result = await send(consul, release(seat, record, owner.index, kept), options);
    if (result.kind === 'done') return { kind: 'released', ...(kept && { kept }) };
  } catch (error) {
    if (signal.aborted || !isWorthAgain(error)) throw error;
    fault = error.message;
  }
  const seen = await lookAgain(holding, options);
  return seen.kind === 'holding' && fault !== undefined ? { ...seen, fault } : seen;
}

/** The release was refused, or its answer was lost: what is there now? */
async function lookAgain(
  holding: Grant,
  options: { signal: AbortSignal; rule: string; timeoutMs: number },
): Promise<Once> {
  const { context, session, slot } = holding;
  const { consul, keys, run } = context;
  const { entries } = await consul.list(keys.slot(slot), { ...options, retryForMs: 0 });
  const now = standing(
    { node: run.node, run: run.id, session: session.id },
    readSlots(keys.root, entries)[0],
  );
  switch (now.kind) {
    case 'gone':
    case 'foreign':
      return (await isRecorded(context, { node: run.node, run: run.id }, { ...options, retryForMs: 0 }))
        ? { kind: 'released' }
        : { kind: 'nothing' };
    case 'mine':
      return { kind: 'holding', holding: { ...holding, owner: now.owner } };
    case 'evicted':
    case 'unlocked': {
      // The release took effect, and its answer was lost.
      if (isLeft(now.owner.claim)) return { kind: 'released', kept: now.owner.claim };
      if (now.kind === 'evicted' && entries.some((entry) => entry.session === session.id)) {
        return { kind: 'holding', holding: { ...holding, owner: now.owner } };
      }
      const claim = returnedClaim(context, now.owner.claim);
      const seat = { keys, session: session.id, slot };
      const result = await send(consul, takeBack(seat, claim, nodeMark(context), now.owner.index), options);
      if (result.kind === 'refused') {
        if (result.obstacle === 'session') await session.close(options);
        const isHeld = result.obstacle === 'lock' || result.obstacle === 'node';
        return { kind: 'holding', holding, ...(isHeld && { blocker: result.key }) };
      }
      const index = writtenIndex(result.entries, keys.owner(slot));
      return { kind: 'holding', holding: { ...holding, owner: { claim, index } } };
    }
    default:
      return assertNever(now);
  }
}
