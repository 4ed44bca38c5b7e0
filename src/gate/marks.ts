/**
 * Records which runs of a node need it in maintenance. Each such run has a mark, and the last run to leave ends the
 * maintenance (docs/adr/0020-last-one-out.md). A mark counts only while a claim or a person needs it, so a crash
 * neither ends the maintenance nor keeps it for ever.
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
  /** Undefined: this version can't read the mark. */
  readonly mark: OutMark | undefined;
}

/** Why a mark is still needed. */
export type Standing =
  /** A claim of its run, or of a later run of the node that has taken its maintenance over. */
  | { readonly kind: 'claimed'; readonly claim: Claim; readonly locked: boolean; readonly group: string }
  | { readonly kind: 'by-hand' }
  /** The mark or its claims can't be read, so assume that the mark is needed. */
  | { readonly kind: 'unknown' }
  /** The mark is not needed: its run has ended, or no longer needs the maintenance. */
  | { readonly kind: 'none' };

const RETRY_MS = 300;
/** Longer than a run takes to leave (`END_MS`): a run that is still leaving after this time was killed. */
const LEAVING_MS = 40_000;

export interface MarkSet {
  readonly others: readonly Marked[];
  /** The run's earlier mark: a run that goes out itself and also by a command inside it has only one mark. */
  readonly before: OutMark | undefined;
}

/**
 * Sets the run's mark, then waits until no other run of the node is ending maintenance. Maintenance that is on after
 * that stays on.
 * @param inside whether the run may have gone out of service before.
 * @param session for maintenance by hand: the mark is deleted with this session until `confirmMark`.
 * @throws RunlockError `session-lost`: the session has ended.
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

/**
 * For maintenance by hand, once the node is out of service: keeps the mark.
 * @throws RunlockError `session-lost`: the mark is gone, so other runs could not know that the maintenance was needed.
 */
export async function confirmMark(
  effects: MarkEffects,
  { prefix, node, run }: Marker,
  { signal, ...entering }: Entering & { signal: AbortSignal },
): Promise<void> {
  const keys = outKeys(prefix, node);
  const limits = { signal, rule: keys.rule, retryForMs: END_MS };
  const entries = await sendSurely(effects, confirmOut(keys, run, entering), limits);
  if (entries.length > 0) return;
  // Either Consul refused, or an earlier try succeeded and its answer was lost.
  const { entry } = await effects.consul.get(keys.mark(run), limits);
  if (!entry || entry.session !== undefined) throw sessionLost();
}

/** Restores the mark that `setMark` found, because the run still needs that maintenance. */
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
  /** Other runs need the maintenance: marks that this run left it on. @returns the other runs' marks at that moment. */
  leaveOn(): Promise<readonly Marked[]>;
  /** Removes the mark. @returns as `leaveOn`. */
  done(during?: AbortSignal): Promise<readonly Marked[]>;
}

/** Marks that this run is leaving. From now on another run that goes out waits until this one has left. */
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

/**
 * Removes the mark of a run that did not go out after all.
 * @returns whether other runs left maintenance on, or may do so now, because of this mark.
 */
export async function dropMark(effects: MarkEffects, marker: Marker, signal: AbortSignal): Promise<boolean> {
  const keys = outKeys(marker.prefix, marker.node);
  const entries = await sendSurely(effects, unmarkOut(keys, marker.run), { signal, rule: keys.rule });
  return othersOf(entries, marker).some(({ mark }) => mark?.state !== undefined);
}

/** Removes these marks, except those that have changed since they were read. */
export async function removeMarks(
  effects: MarkEffects,
  { prefix, node, over }: { prefix: string; node: string; over: readonly Marked[] },
  signal: AbortSignal,
): Promise<void> {
  const keys = outKeys(prefix, node);
  for (const { run, index } of over)
    await sendSurely(effects, removeSeen(keys.mark(run), index, 'node'), { signal, rule: keys.rule });
}

/** Whether a mark is about this maintenance. The mark itself may no longer be needed (`standings`). Pure. */
export function covers({ mark }: Marked, { scope, service }: Pick<Mode, 'scope' | 'service'>): boolean {
  if (!mark) return true;
  return scope === 'node' ? mark.node === true : mark.services.includes(service);
}

/** Why each mark is still needed, by its run. */
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

/** Why a mark is still needed. `run`: the run that asks; its own needs do not count. Pure. */
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

/**
 * Whether a later run of the node has taken this maintenance over: its claim then lists what the earlier run left on.
 */
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
    // A list hides keys that the token may not read, but a read of one key is refused.
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

/**
 * Sends with retries for half a minute; all these steps are safe to repeat. A refusal only means that the mark has
 * changed.
 */
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
