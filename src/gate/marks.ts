/**
 * Which runs of a node need it in maintenance: each has a mark, and the last one out ends the maintenance
 * (docs/adr/0020-last-one-out.md). A mark counts by what stands behind it, so a crash neither ends maintenance nor keeps
 * it for ever.
 */
import { isTransient } from '../consul/consul.ts';
import type { Consul, Entry } from '../consul/consul.ts';
import type { Deps } from '../platform/deps.ts';
import { isRunlockError } from '../errors.ts';
import { groupKeys, outKeys } from '../lock/keys.ts';
import { decodeOutMark, joinLeft } from '../lock/records.ts';
import type { Claim, LeftOn, OutMark } from '../lock/records.ts';
import { readSlots } from '../lock/decide.ts';
import { confirmOut, leftOut, markEntering, markOut, removeSeen, unmarkOut } from '../lock/transactions.ts';
import { send, writtenIndex } from '../consul/txn.ts';
import type { Entering, Step } from '../lock/transactions.ts';
import { sessionLost } from './lock.ts';
import { END_MS } from './maintenance.ts';
import type { Mode } from './maintenance.ts';

export interface MarkEffects {
  readonly consul: Consul;
  readonly deps: Deps;
}

/** Whose mark it is. */
export interface Marker {
  readonly prefix: string;
  readonly node: string;
  readonly run: string;
}

export interface Marked {
  readonly run: string;
  readonly key: string;
  readonly index: number;
  /** Undefined: one that this version can't read. */
  readonly mark: OutMark | undefined;
}

/** What stands behind a mark. */
export type Standing =
  /** A claim of its run, or of a later run of the node that has taken its maintenance over. */
  | { readonly kind: 'claimed'; readonly claim: Claim; readonly locked: boolean; readonly group: string }
  | { readonly kind: 'by-hand' }
  /** It can't be read: what is not known is taken to be needed. */
  | { readonly kind: 'unknown' }
  /** Nothing: its run is over, or needs it no more. */
  | { readonly kind: 'none' };

const RETRY_MS = 300;
/** Longer than whoever leaves takes (`END_MS`): one that takes longer was killed. */
const LEAVING_MS = 40_000;

export interface MarkSet {
  readonly others: readonly Marked[];
  /** The run's own mark from before: one that goes out twice, by itself and by hand inside, has one mark. */
  readonly before: OutMark | undefined;
}

/**
 * Sets the run's mark, then waits until no other run of the node is ending maintenance: what is on after that stays on.
 * @param inside whether the run may have gone out before.
 * @param session by hand: the mark goes with it until `confirmMark`.
 * @throws RunlockError `session-lost`: the session is over.
 */
export async function setMark(
  effects: MarkEffects,
  marker: Marker,
  {
    mark,
    inside,
    session,
    signal,
  }: { mark: OutMark; inside: boolean; session?: string | undefined; signal: AbortSignal },
): Promise<MarkSet> {
  const { consul, deps } = effects;
  const keys = outKeys(marker.prefix, marker.node);
  const limits = { signal, rule: keys.rule, retryForMs: END_MS };
  const own = inside ? (await consul.get(keys.mark(marker.run), limits)).entry : undefined;
  const before = own && toMarked(own, keys.prefix).mark;
  const joined = join(before, mark);
  const steps =
    session === undefined
      ? markOut(keys, marker.run, joined)
      : markEntering(keys, marker.run, { mark: joined, session });
  const entries = await sendSurely(effects, steps, limits);
  if (entries.length === 0) throw sessionLost();
  const sinceMs = deps.clock.monotonicMs();
  for (let others = othersOf(entries, marker); ;) {
    const leaving = others.filter((one) => one.mark?.state === 'leaving');
    if (leaving.length === 0) return { others, before };
    if (deps.clock.monotonicMs() - sinceMs >= LEAVING_MS)
      await removeMarks(effects, { ...marker, over: leaving }, signal);
    else await deps.clock.sleep(RETRY_MS, { signal });
    others = othersOf((await consul.list(keys.prefix, limits)).entries, marker);
  }
}

/** By hand, once it is out. @throws RunlockError `session-lost`: the mark is gone, so nobody knew that it was needed. */
export async function confirmMark(
  effects: MarkEffects,
  { prefix, node, run }: Marker,
  { signal, ...entering }: Entering & { signal: AbortSignal },
): Promise<void> {
  const keys = outKeys(prefix, node);
  const limits = { signal, rule: keys.rule, retryForMs: END_MS };
  const entries = await sendSurely(effects, confirmOut(keys, run, entering), limits);
  if (entries.length > 0) return;
  // Refused, or done by one whose answer was lost.
  const { entry } = await effects.consul.get(keys.mark(run), limits);
  if (!entry || entry.session !== undefined) throw sessionLost();
}

/** Puts back what `setMark` found, where the run stays out by it. */
export async function restoreMark(
  effects: MarkEffects,
  { prefix, node, run }: Marker,
  { mark, signal }: { mark: OutMark; signal: AbortSignal },
): Promise<void> {
  const keys = outKeys(prefix, node);
  await sendSurely(effects, markOut(keys, run, mark), { signal, rule: keys.rule });
}

function join(known: OutMark | undefined, mark: OutMark): OutMark {
  if (!known || known.state !== undefined) return mark;
  return { ...mark, ...joinLeft(known, mark), groups: [...new Set([...known.groups, ...mark.groups])] };
}

export interface Leaving {
  readonly others: readonly Marked[];
  /** Others need it: says that this run does not. @returns the others' marks at that moment. */
  leaveOn(): Promise<readonly Marked[]>;
  /** The mark goes. @returns as `leaveOn`. */
  done(during?: AbortSignal): Promise<readonly Marked[]>;
}

/** From now on whoever goes out waits until this is done, or stays. */
export async function beginLeaving(
  effects: MarkEffects,
  marker: Marker,
  { mark, signal }: { mark: OutMark; signal: AbortSignal },
): Promise<Leaving> {
  const { prefix, node, run } = marker;
  const keys = outKeys(prefix, node);
  const limits = { signal, rule: keys.rule };
  const entries = await sendSurely(effects, markOut(keys, run, { ...mark, state: 'leaving' }), limits);
  const index = writtenIndex(entries, keys.mark(run));
  return {
    others: othersOf(entries, marker),
    leaveOn: async () => othersOf(await sendSurely(effects, leftOut(keys, run, mark, index), limits), marker),
    done: async (during = signal) =>
      othersOf(await sendSurely(effects, unmarkOut(keys, run), { ...limits, signal: during }), marker),
  };
}

/** Of a run that never went out. @returns whether others left maintenance on, or are about to, because it might. */
export async function dropMark(effects: MarkEffects, marker: Marker, signal: AbortSignal): Promise<boolean> {
  const keys = outKeys(marker.prefix, marker.node);
  const entries = await sendSurely(effects, unmarkOut(keys, marker.run), { signal, rule: keys.rule });
  return othersOf(entries, marker).some(({ mark }) => mark?.state !== undefined);
}

/** Those that are still as they were seen. */
export async function removeMarks(
  effects: MarkEffects,
  { prefix, node, over }: { prefix: string; node: string; over: readonly Marked[] },
  signal: AbortSignal,
): Promise<void> {
  const keys = outKeys(prefix, node);
  for (const { run, index } of over)
    await sendSurely(effects, removeSeen(keys.mark(run), index, 'node'), { signal, rule: keys.rule });
}

/** Whether the run of a mark needs this maintenance, if anything stands behind the mark. Pure. */
export function covers({ mark }: Marked, { scope, service }: Pick<Mode, 'scope' | 'service'>): boolean {
  if (!mark) return true;
  return scope === 'node' ? mark.node === true : mark.services.includes(service);
}

/** What stands behind each mark, by its run. */
export async function standings(
  { consul }: MarkEffects,
  { prefix, node, run }: Marker,
  { marks, signal }: { marks: readonly Marked[]; signal: AbortSignal },
): Promise<ReadonlyMap<string, Standing>> {
  const groups = [...new Set(marks.flatMap(({ mark }) => mark?.groups ?? []))];
  const claims = new Map<string, readonly Seen[] | undefined>();
  for (const group of groups) claims.set(group, await claimsOf(consul, { prefix, node, group }, signal));
  return new Map(marks.map((one) => [one.run, judge(one, { run, claims })]));
}

interface Seen {
  readonly claim: Claim;
  readonly locked: boolean;
}

/** Pure. `run`: who asks; what it needs itself is no reason. */
export function judge(
  { mark, run: marked }: Marked,
  { run, claims }: { run: string; claims: ReadonlyMap<string, readonly Seen[] | undefined> },
): Standing {
  if (!mark) return { kind: 'unknown' };
  if (mark.state !== undefined) return { kind: 'none' };
  if (mark.groups.length === 0) return { kind: 'by-hand' };
  let unknown = false;
  for (const group of mark.groups) {
    const seen = claims.get(group);
    unknown ||= seen === undefined;
    const behind = seen?.find(
      ({ claim }) => claim.run === marked || (claim.run !== run && took(claim, mark)),
    );
    if (behind) return { kind: 'claimed', ...behind, group };
  }
  return unknown ? { kind: 'unknown' } : { kind: 'none' };
}

/** A later run of the node that ended nothing has the maintenance of the one before on its claim. */
const took = ({ maintenance }: Claim, mark: OutMark) =>
  maintenance !== undefined && overlap(maintenance, mark);

export const overlap = (a: LeftOn, b: LeftOn) =>
  (a.node === true && b.node === true) || a.services.some((one) => b.services.includes(one));

/** The node's claims in the group; undefined: the token may not see them, or they can't be read. */
async function claimsOf(
  consul: Consul,
  { prefix, node, group }: { prefix: string; node: string; group: string },
  signal: AbortSignal,
): Promise<readonly Seen[] | undefined> {
  const keys = groupKeys(prefix, group);
  const limits = { signal, rule: keys.rule, retryForMs: END_MS };
  try {
    // A listing hides what the token may not read; one key is refused.
    await consul.get(keys.owner(0), limits);
    const { entries } = await consul.list(keys.slotPrefix, limits);
    return readSlots(prefix, entries).flatMap(({ owner, lockedBy }) =>
      owner?.claim.node === node ? [{ claim: owner.claim, locked: lockedBy !== undefined }] : [],
    );
  } catch (error) {
    if (isRunlockError(error, 'forbidden', 'incompatible')) return undefined;
    throw error;
  }
}

function othersOf(entries: readonly Entry[], { prefix, node, run }: Marker): Marked[] {
  const keys = outKeys(prefix, node);
  return entries
    .filter(({ key, value }) => key.startsWith(keys.prefix) && key !== keys.mark(run) && value !== '')
    .map((entry) => toMarked(entry, keys.prefix));
}

function toMarked(entry: Entry, prefix: string): Marked {
  const one = { run: entry.key.slice(prefix.length), key: entry.key, index: entry.modifyIndex };
  try {
    return { ...one, mark: decodeOutMark(entry) };
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    return { ...one, mark: undefined };
  }
}

/** Each of these may be sent twice, for half a minute; a refusal says that the mark has changed, and is no fault. */
async function sendSurely(
  { consul, deps }: MarkEffects,
  steps: readonly Step[],
  limits: { signal: AbortSignal; rule: string },
): Promise<readonly Entry[]> {
  const startedMs = deps.clock.monotonicMs();
  for (;;) {
    try {
      const result = await send(consul, steps, limits);
      return result.kind === 'done' ? result.entries : [];
    } catch (error) {
      if (!isTransient(error) || deps.clock.monotonicMs() - startedMs >= END_MS) throw error;
    }
    await deps.clock.sleep(RETRY_MS, { signal: limits.signal });
  }
}
