/** States of `--during`: they are there only while a claim stands, so both keys are read at one moment. */
import type { Consul, Entry, RetryOptions } from '../consul/consul.ts';
import { lookPast } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import { keepsOutForMs } from '../lock/decide.ts';
import { groupKeys } from '../lock/keys.ts';
import { decodeClaim, rootOf } from '../lock/records.ts';
import type { Clock } from '../platform/deps.ts';
import { decodeState, leftOfState } from './document.ts';
import type { StateDocument, While } from './document.ts';

/** The key of the claim under which a state stands, and the rule to read it. */
export function claimKey(prefix: string, { group, slot }: While): { key: string; rule: string } {
  const keys = groupKeys(prefix, group);
  return { key: keys.owner(slot), rule: `key_prefix "${keys.slotPrefix}" { policy = "read" }` };
}

/**
 * How long until the claim no longer keeps the slot, in milliseconds: 0 or less: it has ended, and with it the state;
 * Infinity: it does not end by itself. `owner`: what the claim's key held in the moment in which the state was read.
 * `nowMs`: the earliest that it may be (`WallClock`). @throws RunlockError `incompatible`: it is no claim.
 */
export function leftOfClaim(claim: While, owner: Entry | undefined, nowMs: number): number {
  if (!owner) return 0;
  const stored = decodeClaim(owner);
  return rootOf(stored) === claim.root ? keepsOutForMs(stored, nowMs) : 0;
}

/** The claim that a state names; undefined: none, or the state can't be read, which its reader says. */
export function whileOf(entry: Entry): While | undefined {
  try {
    return decodeState(entry).while;
  } catch (error) {
    if (isRunlockError(error, 'incompatible')) return undefined;
    throw error;
  }
}

/** A document; and what its claim's key held, read together. Without `claim` nobody has asked. */
export interface Standing {
  readonly document: StateDocument;
  readonly claim?: { readonly owner: Entry | undefined } | undefined;
}

/** As `leftOfState`, for a state of `--during` too. */
export function leftOfStanding({ document, claim }: Standing, nowMs: number): number {
  const leftMs = leftOfState(document, nowMs);
  if (!document.while || !claim) return leftMs;
  return Math.min(leftMs, leftOfClaim(document.while, claim.owner, nowMs));
}

/** Two operations for each state, 64 in a transaction. */
const BATCH = 32;

/** Give up after so many reads in a row in which the state stood under another claim. */
const TRIES = 10;

/** A state's key, and the claim that it names. */
interface Keyed {
  readonly key: string;
  readonly while: While;
}

/**
 * Reads states together with the claims that they name.
 * @returns each state's entry, undefined where it is gone, and the entry of its claim.
 * @throws RunlockError `forbidden`, naming the rule, where a claim may not be read.
 */
async function readWithClaims(
  { consul, prefix }: { readonly consul: Consul; readonly prefix: string },
  states: readonly Keyed[],
  limits: RetryOptions,
): Promise<ReadonlyMap<string, { readonly entry: Entry | undefined; readonly owner: Entry | undefined }>> {
  const found = new Map<string, { entry: Entry | undefined; owner: Entry | undefined }>();
  for (let at = 0; at < states.length; at += BATCH) {
    const some = states
      .slice(at, at + BATCH)
      .map(({ key, while: claim }) => ({ key, claim: claimKey(prefix, claim) }));
    const keys = [...new Set(some.flatMap(({ key, claim }) => [key, claim.key]))];
    const entries = await consul.readAll(
      keys.map((key) => ({ verb: 'get-tree', key })),
      limits,
    );
    for (const { key, claim } of some) {
      const owner = entries.find((entry) => entry.key === claim.key);
      // A transaction leaves out what the token may not read: a read of the key alone is refused.
      if (!owner) await consul.get(claim.key, { ...limits, rule: claim.rule });
      found.set(key, { entry: entries.find((entry) => entry.key === key), owner });
    }
  }
  return found;
}

const isSame = (one: While | undefined, other: While | undefined) =>
  one?.group === other?.group && one?.slot === other?.slot && one?.root === other?.root;

interface Read {
  readonly key: string;
  readonly document: StateDocument;
}

/**
 * States with their claims, as both were at one moment. One that is gone by then is left out; one that stands under
 * another claim by then is read again. `read`: what an entry holds.
 * @throws RunlockError as `readWithClaims`; `refused`: a state keeps changing.
 */
export async function withClaims<T extends Read>(
  reader: { readonly consul: Consul; readonly prefix: string },
  states: readonly T[],
  {
    limits,
    read,
  }: { readonly limits: RetryOptions; readonly read: (entry: Entry, before: T) => T | undefined },
): Promise<readonly (T & Pick<Standing, 'claim'>)[]> {
  const settled = new Map<string, (T & Pick<Standing, 'claim'>) | undefined>();
  let left = states;
  for (let tries = 1; tries <= TRIES; tries += 1) {
    for (const state of left) if (!state.document.while) settled.set(state.key, state);
    const open = left.flatMap((state) =>
      state.document.while ? [{ state, while: state.document.while }] : [],
    );
    if (open.length === 0)
      return states.flatMap(({ key }) => {
        const state = settled.get(key);
        return state ? [state] : [];
      });
    const found = await readWithClaims(
      reader,
      open.map((one) => ({ key: one.state.key, while: one.while })),
      limits,
    );
    const again: T[] = [];
    for (const { state, while: claim } of open) {
      const { entry, owner } = found.get(state.key) ?? {};
      const now = entry && read(entry, state);
      if (now && isSame(now.document.while, claim)) settled.set(state.key, { ...now, claim: { owner } });
      else if (now) again.push(now);
      else settled.set(state.key, undefined);
    }
    left = again;
  }
  throw new RunlockError('refused', `${left[0]?.key ?? 'a state'} keeps changing; try again`);
}

/** Why the claim of a state can't be read; undefined: it can, or there is none. */
export function claimFault({ claim }: Standing): RunlockError | undefined {
  if (!claim?.owner) return undefined;
  try {
    decodeClaim(claim.owner);
    return undefined;
  } catch (error) {
    if (isRunlockError(error, 'incompatible')) return error;
    throw error;
  }
}

/** Claims of one watch that are followed each by a query of its own; Consul accepts 200 connections from a host. */
const MOST_FOLLOWED = 8;
/** With more claims than that, how often all of them are read. */
const UNFOLLOWED_MS = 5_000;
const PAUSE_MS = 100;
const ABSENT_PAUSE_MS = 1_000;

interface Looking {
  readonly consul: Consul;
  readonly clock: Clock;
  readonly prefix: string;
  readonly signal: AbortSignal;
}

/** Waits as `readNow` does, but only until one of the claims is another; then it reads at once. */
export async function followClaims<T>(
  looking: Looking,
  standing: readonly Standing[],
  {
    past,
    readNow,
  }: { readonly past: Past; readonly readNow: (past: Past, signal: AbortSignal) => Promise<T> },
): Promise<T> {
  const claims = new Map<string, Followed>();
  for (const { document, claim } of standing) {
    if (!document.while) continue;
    const { key, rule } = claimKey(looking.prefix, document.while);
    claims.set(key, { key, rule, modifyIndex: claim?.owner?.modifyIndex });
  }
  const over = new AbortController();
  const signal = AbortSignal.any([looking.signal, over.signal]);
  const isMany = claims.size > MOST_FOLLOWED;
  const { waitMs = Infinity } = past;
  const waiting = isMany ? { ...past, waitMs: Math.min(waitMs, UNFOLLOWED_MS) } : past;
  const followed = isMany ? [] : [...claims.values()];
  try {
    return await Promise.race([
      readNow(waiting, signal),
      ...followed.map(async (claim) => {
        await untilChanged({ ...looking, signal }, claim);
        return readNow({}, signal);
      }),
    ]);
  } finally {
    over.abort();
  }
}

interface Followed {
  readonly key: string;
  readonly rule: string;
  /** As it was read; undefined: there was no claim. */
  readonly modifyIndex: number | undefined;
}

/** Resolves when the claim is another than it was when it was read. */
export async function untilChanged(
  { consul, clock, signal }: Looking,
  { key, rule, modifyIndex }: Followed,
): Promise<void> {
  let past = modifyIndex ?? 0;
  for (;;) {
    const seen = await lookPast((limits) => consul.get(key, { ...limits, signal, rule }), past);
    if (seen.entry?.modifyIndex !== modifyIndex) return;
    past = seen.index;
    await clock.sleep(seen.entry ? PAUSE_MS : ABSENT_PAUSE_MS, { signal });
  }
}
