/** Releases a slot: at the end of a run, or when `release` ends what `acquire` holds (docs/protocol.md, "Release"). */
import { isTransient, isWorthAgain } from '../consul/consul.ts';
import type { Consul, Entry } from '../consul/consul.ts';
import { lastWord, untilDone, untilRefused } from '../consul/retry.ts';
import { leaveSession, openSession } from '../consul/session.ts';
import { send, writtenIndex } from '../consul/txn.ts';
import { RunlockError, assertNever, isRunlockError } from '../errors.ts';
import type { GivenBack } from '../events/events.ts';
import type { Deps } from '../platform/deps.ts';
import { hint } from '../text/suggested-command.ts';
import { nodeMark, returnedClaim, timestamp } from './context.ts';
import { isLeft, readSlots, standing } from './decide.ts';
import type { Owner, Slot, Standing } from './decide.ts';
import type { Causes } from './causes.ts';
import type { Grant } from './head-of-queue.ts';
import type { GroupKeys } from './keys.ts';
import { joinLeft } from './records.ts';
import type { Claim, LeftOn, Outcome, RunRecord } from './records.ts';
import { isRecorded, keptClaim, readLastGood, recordEnd } from './run-record.ts';
import { endHeld, release, takeBack } from './transactions.ts';

/** How long to retry closing the session once nothing depends on it any more. */
export const LEAVE = { retryForMs: 2_000 };
/** Longer than an election takes (12.7 to 17.5 s were measured). */
export const DEADLINE_MS = 30_000;
const REQUEST_MS = 5_000;
export const RETRY_MS = 300;
const LONGEST_RETRY_MS = 5_000;
/** Retry this long, so that one wrong answer from a proxy does not lose the time of the last successful run. */
const ODD_RETRY_MS = 1_000;

/** The limits of each request. `signal` aborts at the deadline of the whole operation. */
export interface Limits {
  readonly signal: AbortSignal;
  readonly rule: string;
  readonly timeoutMs: number;
}

/** The limits for an operation that starts now and releases a slot or turns a grant into a held claim. */
export const limits = ({ rule }: GroupKeys, deadlineMs = DEADLINE_MS): Limits => ({
  signal: AbortSignal.timeout(deadlineMs),
  rule,
  timeoutMs: REQUEST_MS,
});

/**
 * Tries until `tryOnce` succeeds or the limits end. Gives up on a refusal soon, because a person may be waiting.
 * @throws the last fault.
 */
export const untilAnswered = <T>(
  { clock }: Deps,
  { signal }: Limits,
  tryOnce: () => Promise<T | undefined>,
): Promise<T> => {
  const isWorth = untilRefused(clock);
  return untilDone(clock, { signal, pauseMs: () => RETRY_MS, isWorth }, tryOnce);
};

/** How the run ended. */
export interface Ending {
  readonly outcome: Outcome;
  readonly exitCode?: number;
  readonly waitedMs: number;
  readonly ranMs: number;
  /** What the run leaves in maintenance. */
  readonly leftOn?: LeftOn;
  /** Undefined: no trigger has led to the run. */
  readonly causes?: Causes | undefined;
  /** An index of the claim from before the command began. Absent: no command did. */
  readonly from?: number;
}

/** Releases the slot. Has its own deadline and never throws. */
export async function giveBack(holding: Grant, ending: Ending & { ttlMs: number }): Promise<GivenBack> {
  const { consul, deps, keys } = holding.context;
  const { ttlMs, leftOn } = ending;
  const asked = limits(keys);
  const { signal } = asked;
  let record: RunRecord | undefined;
  let now = holding;
  /** The key that another session holds. */
  let blocker: string | undefined;
  let refusals = 0;
  const releaseNow = async (): Promise<GivenBack | undefined> => {
    record ??= await withLastGood(holding.context, toRecord(holding, ending), asked);
    const step = await releaseOnce(now, { record: under(now, record), leftOn, ttlMs, asked });
    if (step.kind !== 'holding') return step;
    ({ holding: now, blocker } = step);
    refusals = blocker === undefined ? 0 : refusals + 1;
    if (step.fault) throw step.fault;
    return undefined;
  };
  // Pause longer after each refusal, because each try is a write.
  const pauseMs = () => Math.min(LONGEST_RETRY_MS, RETRY_MS * 2 ** refusals);
  const result = await untilDone(deps.clock, { signal, pauseMs }, releaseNow).catch(
    (error: unknown): GivenBack => {
      const why = blocker === undefined ? lastWord(consul, error, 'no answer') : heldBy(blocker);
      const isStuck = blocker !== undefined || isRunlockError(error, 'incompatible');
      return { kind: 'stays', keys: [keys.owner(holding.slot)], why, ...(isStuck && { stuck: true }) };
    },
  );
  // Record the end of the run even if the slot could not be released. A successful release has recorded it already.
  if (result.kind !== 'released' && record && !signal.aborted)
    await recordEnd(now.context, under(now, record), signal);
  await leaveSession(now.context, now.session, LEAVE);
  return result;
}

/** Says how to delete the key by hand, because the release can't remove this lock. */
export const heldBy = (key: string) =>
  `another session holds ${key}; to release the slot, run 'consul kv delete ${key}'`;

export function toRecord(
  { context, slot }: Grant,
  { outcome, exitCode, waitedMs, ranMs, causes, from }: Ending,
): RunRecord {
  const { id, node, command, task } = context.run;
  const code = exitCode === undefined ? {} : { exitCode };
  const figures = { waitedMs: Math.round(waitedMs), ranMs: Math.round(ranMs) };
  return {
    node,
    run: id,
    outcome,
    ...code,
    command,
    slot,
    endedAt: timestamp(context),
    ...figures,
    ...causes,
    ...(task && from !== undefined && { task: { ...task, from } }),
  };
}

export const under = ({ owner }: Grant, record: RunRecord): RunRecord => ({
  ...record,
  claimIndex: owner.index,
});

/**
 * Adds the time of the node's last successful run to the record of an unsuccessful one. Only such a record needs this
 * read.
 * @throws after a transient fault.
 */
export async function withLastGood(
  reader: Pick<HeldClaim, 'consul' | 'keys'>,
  record: RunRecord,
  asked: Limits,
): Promise<RunRecord> {
  if (record.outcome === 'succeeded') return record;
  try {
    const known = await readLastGood(reader, record.node, { ...asked, retryForMs: ODD_RETRY_MS });
    return { ...record, ...known };
  } catch (error) {
    if (isTransient(error)) throw error;
    // The old record can't be read. This is no reason to keep the slot.
    return record;
  }
}

type Once =
  | GivenBack
  /**
   * The slot is still held. `fault`: what failed, if Consul did not answer the release itself. `blocker`: a key that
   * another session holds.
   */
  | {
      readonly kind: 'holding';
      readonly holding: Grant;
      readonly fault?: RunlockError;
      readonly blocker?: string;
    };

interface Release {
  readonly record: RunRecord;
  readonly leftOn: LeftOn | undefined;
  readonly ttlMs: number;
  readonly asked: Limits;
}

/** The same holding, with a session that lives. @throws RunlockError when Consul does not open one. */
export async function withSession(
  holding: Grant,
  { ttlMs, signal }: { readonly ttlMs: number; readonly signal: AbortSignal },
): Promise<Grant> {
  const { context, session } = holding;
  if (!session.lost.aborted) return holding;
  const name = `runlock ${context.keys.group}`;
  return { ...holding, session: await openSession(context, { name, ttlMs, signal }) };
}

/** The claim that stays when a run is recorded so; undefined: none stays. */
export function keptBy(
  { context: { deps, run }, owner }: Grant,
  record: RunRecord,
  leftOn: LeftOn | undefined,
): Claim | undefined {
  if (record.outcome === 'interrupted' && run.releaseOnSignal === true) return undefined;
  const maintenance = joinLeft(owner.claim.maintenance, leftOn);
  const claim: Claim = {
    ...owner.claim,
    state: 'running',
    node: run.node,
    ...(maintenance && { maintenance }),
  };
  return keptClaim(claim, record, deps.clock.latest());
}

/** One try to release the slot. If it has to be tried again, returns what the run holds now. */
async function releaseOnce(holding: Grant, { record, leftOn, ttlMs, asked }: Release): Promise<Once> {
  const { context, session, slot, owner } = holding;
  const { consul, keys } = context;
  const { signal } = asked;
  if (session.lost.aborted)
    return { kind: 'holding', holding: await withSession(holding, { ttlMs, signal }) };
  const seat = { keys, session: session.id, slot };
  const kept = keptBy(holding, record, leftOn);
  let fault: RunlockError | undefined;
  try {
    const result = await send(consul, release(seat, record, owner.index, kept), asked);
    if (result.kind === 'done') return { kind: 'released', ...(kept && { kept }) };
  } catch (error) {
    if (signal.aborted || !isWorthAgain(error)) throw error;
    fault = error;
  }
  const seen = await lookAgain(holding, asked);
  return seen.kind === 'holding' && fault ? { ...seen, fault } : seen;
}

/** Reads the slot after a release that was refused or had no answer, and takes the lock back if it is missing. */
async function lookAgain(holding: Grant, asked: Limits): Promise<Once> {
  const { context, session } = holding;
  const { run } = context;
  const { now, entries } = await standingNow(holding, asked);
  switch (now.kind) {
    case 'gone':
    case 'foreign':
      return (await isRecorded(context, { node: run.node, run: run.id }, { ...asked, retryForMs: 0 }))
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
      return { kind: 'holding', ...(await retake(holding, now.owner, asked)) };
    }
    default:
      return assertNever(now);
  }
}

/** How the slot looks to its run now. */
export async function standingNow(
  { context, session, slot }: Grant,
  asked: Limits,
): Promise<{ readonly now: Standing; readonly entries: readonly Entry[] }> {
  const { consul, keys, run } = context;
  const { entries } = await consul.list(keys.slot(slot), { ...asked, retryForMs: 0 });
  const me = { node: run.node, run: run.id, session: session.id };
  return { now: standing(me, readSlots(keys.base, entries)[0]), entries };
}

/** Takes a missing lock back, to release the slot. `blocker`: the key that another session holds. */
export async function retake(
  holding: Grant,
  owner: Owner,
  asked: Limits,
): Promise<{ readonly holding: Grant; readonly blocker?: string }> {
  const { context, session, slot } = holding;
  const { consul, keys } = context;
  const claim = returnedClaim(context, owner.claim);
  const seat = { keys, session: session.id, slot };
  const result = await send(consul, takeBack(seat, claim, nodeMark(context), owner.index), asked);
  if (result.kind === 'refused') {
    if (result.obstacle === 'session') await session.close(asked);
    const isHeld = result.obstacle === 'lock' || result.obstacle === 'node';
    return { holding, ...(isHeld && { blocker: result.key }) };
  }
  const index = writtenIndex(result.entries, keys.owner(slot));
  return { holding: { ...holding, owner: { claim, index } } };
}

/** A slot that `acquire` holds for its node, by a claim without a session. */
export interface HeldClaim {
  readonly consul: Consul;
  readonly deps: Deps;
  readonly keys: GroupKeys;
  readonly node: string;
  readonly slot: number;
}

/** The outcome of the work that was done between `acquire` and `release`. */
export interface HeldEnding {
  readonly outcome: 'succeeded' | 'failed';
  readonly exitCode?: number;
}

export interface EndedHeld {
  readonly claim: Claim;
  /** The claim that goes on keeping others out. */
  readonly kept?: Claim;
  readonly heldMs: number;
}

/**
 * Releases the slot that `acquire` holds for this node, and records the end. Retries until its deadline. Undefined:
 * this node holds nothing in the slot.
 * @throws RunlockError when Consul can't be reached, or refuses: the claim stays held.
 */
export async function giveHeldBack(held: HeldClaim, ending: HeldEnding): Promise<EndedHeld | undefined> {
  const asked = limits(held.keys);
  let sent: { readonly record: RunRecord; readonly ended: EndedHeld } | undefined;
  const endOnce = async (): Promise<EndedHeld | 'nothing' | undefined> => {
    const slot = await readSlot(held, asked);
    const owner = slot.owner;
    if (owner?.claim.node !== held.node || owner.claim.state !== 'held') {
      if (sent && (await isRecorded(held, sent.record, asked))) return sent.ended;
      // The claim was cleared or taken over after this read it. Record the end of the work all the same.
      if (sent) await recordEnd(held, sent.record, asked.signal);
      return 'nothing';
    }
    const record = await withLastGood(held, heldRecord(held, owner, ending), asked);
    const ended = toEnd(held, owner, record);
    sent = { record, ended };
    const seen = { ...held, strayLock: slot.strayLock };
    const result = await send(held.consul, endHeld(seen, record, owner.index, ended.kept), asked);
    return result.kind === 'done' ? ended : undefined;
  };
  try {
    const ended = await untilAnswered(held.deps, asked, endOnce);
    return ended === 'nothing' ? undefined : ended;
  } catch (error) {
    const { consul, keys, node, slot } = held;
    // An unreadable key would stop the suggested command too; the fault itself says what to do.
    const again = isRunlockError(error, 'incompatible')
      ? ''
      : `; ${node} still holds the slot; run '${hint(keys.root, 'release', keys.group)}' again`;
    throw new RunlockError(
      isRunlockError(error) ? error.code : 'unreachable',
      `could not release slot ${slot} of ${keys.group} (${lastWord(consul, error)})${again}`,
      { cause: error },
    );
  }
}

async function readSlot({ consul, keys, slot }: HeldClaim, asked: Limits): Promise<Slot> {
  const { entries } = await consul.list(keys.slot(slot), asked);
  return readSlots(keys.base, entries)[0] ?? { slot };
}

function heldRecord(
  { deps, node, slot }: HeldClaim,
  { claim, index: claimIndex }: Owner,
  { outcome, exitCode }: HeldEnding,
): RunRecord {
  const { run, command, waitedMs = 0 } = claim;
  const code = exitCode === undefined ? {} : { exitCode };
  const ranMs = Math.max(0, deps.clock.now() - Date.parse(claim.since));
  const figures = { waitedMs, ranMs, claimIndex };
  return { node, run, outcome, ...code, command, slot, endedAt: timestamp({ deps }), ...figures };
}

function toEnd({ deps }: HeldClaim, owner: Owner, record: RunRecord): EndedHeld {
  const claim: Claim & { waitedMs?: number } = { ...owner.claim };
  delete claim.waitedMs;
  const kept = keptClaim(claim, record, deps.clock.latest());
  return { claim, heldMs: record.ranMs, ...(kept && { kept }) };
}
