/**
 * The last transaction before the command of a run with `--during`, or with conditions on states: it still holds all of
 * its slots, its conditions are as it saw them, and its states of `--during` are set (docs/protocol.md, "States"). Loaded
 * for such runs only.
 */
import type { Entry } from '../consul/consul.ts';
import { growingMs, lastWord, untilDone, untilRefused } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { send, writtenIndex } from '../consul/txn.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import type { Causes } from '../lock/causes.ts';
import { rootOf } from '../lock/records.ts';
import { start } from '../lock/transactions.ts';
import type { SeenKey } from '../lock/transactions.ts';
import { encodeState } from '../state/document.ts';
import { duringDocument } from '../state/of-run.ts';
import { stateKey, stateRule } from '../state/path.ts';
import type { Setting } from '../state/setting.ts';
import { firstOver, hear } from './slots.ts';
import type { HeldSlot, HeldSlots } from './slots.ts';
import type { ExecDeps } from './options.ts';

/** A state of `--during` as the start has written it. */
export interface DuringState extends SeenKey {
  readonly path: string;
}

/** A run that may start its command now. */
export interface Begun {
  /** Of a run that a change has started; undefined: as those of the run that it is inside of. */
  readonly causes?: Causes | undefined;
  readonly during: readonly DuringState[];
  /** For a command that could not be started, once all slots are given up: restores the states. Never throws. */
  readonly undo: () => Promise<void>;
}

export type Beginning =
  | { readonly kind: 'begun'; readonly begun: Begun }
  /** What a condition rests on has changed since it was read; all slots are given up. */
  | { readonly kind: 'changed'; readonly key: string }
  /** The lease of this slot ended; all slots are given up. */
  | { readonly kind: 'lost'; readonly slot: HeldSlot };

export interface BeginRequest {
  readonly prefix: string;
  readonly during: readonly Setting[];
  /** What the conditions rest on, as the last look read it (index 0: the key was not there). */
  readonly conditions: readonly SeenKey[];
  readonly signal: AbortSignal;
  /** Gives up all slots, and the gate. Never throws. */
  readonly giveUp: () => Promise<void>;
}

/** While it holds slots, a run waits no longer than this for Consul. */
const ANSWER_MS = 30_000;
const REQUEST_MS = 5_000;
/** In one transaction. */
const MOST_OPERATIONS = 64;
const AGAIN: Growth = { shortestMs: 100, longestMs: 2_000 };

/**
 * Sends `start`. Unless the run may begin, all slots are given up and everything is left as it was.
 * @throws the signal's reason when it aborts; RunlockError when Consul does not answer, or refuses.
 */
export async function begin(deps: ExecDeps, slots: HeldSlots, request: BeginRequest): Promise<Beginning> {
  const { consul, clock, random } = deps;
  const { prefix, during, signal, giveUp } = request;
  const over = new AbortController();
  for (const { lease } of slots) hear(lease.over, () => over.abort());
  const either = AbortSignal.any([signal, over.signal]);
  const timeout = AbortSignal.timeout(ANSWER_MS);
  const limits = { signal: AbortSignal.any([either, timeout]), timeoutMs: REQUEST_MS };
  const rule = rulesOf(slots, prefix, during);
  const states = toStates(deps, slots, request);
  // Claims of states of --during come last; the last look has judged those that find no room.
  let conditions = request.conditions.slice(0, MOST_OPERATIONS - 2 * slots.length - during.length);
  let before: readonly Entry[] | undefined;
  let isSent = false;
  let failures = 0;
  const undo = async () => {
    if (isSent) await restore(deps, states, { before: before ?? [], rule });
  };
  const tryOnce = async (): Promise<Beginning | undefined> => {
    // Undone is what was there before the first try: a later one may read what the first has written.
    before ??= await readStates(deps, states, { ...limits, rule });
    for (const { lease } of slots) lease.checkDeadline();
    either.throwIfAborted();
    const isAgain = isSent;
    isSent = true;
    const sentMs = clock.monotonicMs();
    // A try without an answer is sent again: each writes the same documents, and proves anew that the slots are held.
    const result = await send(consul, start(heldSeats(slots), conditions, states), { ...limits, rule });
    if (result.kind === 'done') {
      // A process that was stopped meanwhile may have lost a slot since: it has to prove again that it holds them.
      if (clock.monotonicMs() - sentMs > REQUEST_MS) return undefined;
      const indexes = states.map(({ path, key }) => ({
        path,
        key,
        index: writtenIndex(result.entries, key),
      }));
      return { kind: 'begun', begun: { during: indexes, undo } };
    }
    if (result.obstacle !== 'condition') return undefined;
    const own = isAgain ? states.find(({ key }) => key === result.key) : undefined;
    if (!own || !(await isOurs(deps, own, { ...limits, rule }))) return { kind: 'changed', key: result.key };
    // An earlier try took effect, and has itself changed what this condition was about.
    conditions = conditions.filter(({ key }) => key !== own.key);
    return undefined;
  };
  try {
    const isWorth = untilRefused(clock);
    const pauseMs = () => growingMs(failures++, AGAIN, random);
    const done = await untilDone(clock, { signal: limits.signal, pauseMs, isWorth }, tryOnce);
    if (done.kind === 'begun') return done;
    await giveUp();
    await undo();
    return done;
  } catch (error) {
    const lost = firstOver(slots, { over: over.signal, signal: either });
    const isLate = timeout.aborted && !either.aborted;
    const why = lastWord(consul, error);
    await giveUp();
    await undo();
    if (lost) return { kind: 'lost', slot: lost };
    // The last fault was not what ended it.
    signal.throwIfAborted();
    if (!isLate) throw error;
    const code = isRunlockError(error) ? error.code : 'unreachable';
    throw new RunlockError(code, `${why}; nothing was started`, { cause: error });
  }
}

/** With the sessions and claims as they are now: a lock may have been taken back since the grant. */
const heldSeats = (slots: HeldSlots) =>
  slots.map(({ lease }) => {
    const { context, session, slot, owner } = lease.holding();
    return { seat: { keys: context.keys, session: session.id, slot }, index: owner.index };
  });

interface Wanted {
  readonly path: string;
  readonly key: string;
  readonly value: string;
}

function toStates(
  { clock, newId, causes }: ExecDeps,
  [first]: HeldSlots,
  { prefix, during }: BeginRequest,
): Wanted[] {
  const { context, slot, owner } = first.lease.holding();
  const { id: run, node } = context.run;
  const claim = { group: context.keys.group, slot, root: rootOf(owner.claim) };
  const writer = { node, run, at: new Date(clock.now()).toISOString(), newId, causes };
  return during.map((setting) => {
    const value = encodeState(duringDocument(setting, claim, writer));
    return { path: setting.path, key: stateKey(prefix, setting.path), value };
  });
}

/** The rights that the transaction needs, for a refusal. */
function rulesOf(slots: HeldSlots, prefix: string, settings: readonly Setting[]): string {
  const states = settings.map(({ path }) => stateRule(prefix, path, 'write'));
  return [...new Set([...slots.map(({ grant }) => grant.context.keys.rule), ...states])].join(', ');
}

interface Limits {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  readonly rule: string;
}

async function readStates(
  { consul }: ExecDeps,
  states: readonly Wanted[],
  limits: Limits,
): Promise<readonly Entry[]> {
  if (states.length === 0) return [];
  const reads = states.map(({ key }) => ({ verb: 'get-tree' as const, key }));
  return consul.readAll(reads, { ...limits, retryForMs: 0 });
}

async function isOurs({ consul }: ExecDeps, { key, value }: Wanted, limits: Limits): Promise<boolean> {
  const { entry } = await consul.get(key, { ...limits, retryForMs: 0 });
  return entry?.value === value;
}

const UNDO_MS = 5_000;

/**
 * Takes back what `start` wrote, for a command that never began. It matters where this node's earlier claim was
 * restored: the states would stand as long as that claim does. The sessions are gone, so no late `start` can follow.
 */
async function restore(
  { consul, clock }: ExecDeps,
  states: readonly Wanted[],
  { before, rule }: { readonly before: readonly Entry[]; readonly rule: string },
): Promise<void> {
  const limits = { signal: AbortSignal.timeout(UNDO_MS), timeoutMs: REQUEST_MS, rule };
  const restoreOne = async ({ key, value }: Wanted): Promise<true | undefined> => {
    const { entry } = await consul.get(key, { ...limits, retryForMs: 0 });
    if (entry?.value !== value) return true;
    const index = entry.modifyIndex;
    const was = before.find((one) => one.key === key);
    const operation = was
      ? ({ verb: 'cas', key, value: was.value, index } as const)
      : ({ verb: 'delete-cas', key, index } as const);
    const answer = await consul.transact([{ verb: 'check-index', key, index }, operation], limits);
    return answer.kind === 'done' ? true : undefined;
  };
  const tries = { signal: limits.signal, pauseMs: () => AGAIN.shortestMs };
  await Promise.all(
    states.map((state) =>
      untilDone(clock, tries, () => restoreOne(state)).catch(() => {
        // Consul does not answer; without a claim of this node the states count as absent all the same.
      }),
    ),
  );
}
