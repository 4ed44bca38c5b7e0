/**
 * The last transaction before the command: the run still holds all of its slots, and what its parts have to prove and to
 * write at the start (docs/protocol.md, "The start of a command"). Loaded for runs with such parts only.
 */
import { growingMs, lastWord, untilDone, untilRefused } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { listOf, send } from '../consul/txn.ts';
import type { Step } from '../consul/txn.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import type { Causes } from '../lock/causes.ts';
import { start } from '../lock/transactions.ts';
import type { Leaving, StartPart, StartPlan, StartTry } from './part.ts';
import { firstOver, hear } from './slots.ts';
import type { HeldSlot, HeldSlots } from './slots.ts';
import type { ExecDeps } from './options.ts';

/** A run that may start its command now. */
export interface Begun {
  /** Of a run that a change has started; undefined: as those of the run that it is inside of. */
  readonly causes?: Causes | undefined;
  /** For a command that could not be started, once all slots are given up. `fault`: why. Never throws. */
  readonly undo: (fault?: unknown) => Promise<void>;
}

export type Beginning =
  | { readonly kind: 'begun'; readonly begun: Begun }
  /** What a condition rests on has changed since it was read; all slots are given up. */
  | { readonly kind: 'changed'; readonly key: string }
  /** A part does not want the run any more; all slots are given up. */
  | Leaving
  /** The lease of this slot ended; all slots are given up. */
  | { readonly kind: 'lost'; readonly slot: HeldSlot };

export interface BeginRequest {
  readonly parts: readonly StartPart[];
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

type Tried = { readonly kind: 'begun' } | Exclude<Beginning, { kind: 'begun' | 'lost' }>;

/**
 * Sends `start`. Unless the run may begin, all slots are given up and everything is left as it was.
 * @throws the signal's reason when it aborts; RunlockError when Consul does not answer, or refuses, or a part does.
 */
export async function begin(deps: ExecDeps, slots: HeldSlots, request: BeginRequest): Promise<Beginning> {
  const { consul, clock, random } = deps;
  const { parts, signal, giveUp } = request;
  const over = new AbortController();
  for (const { lease } of slots) hear(lease.over, () => over.abort());
  const either = AbortSignal.any([signal, over.signal]);
  const timeout = AbortSignal.timeout(ANSWER_MS);
  const limits = {
    signal: AbortSignal.any([either, timeout]),
    timeoutMs: REQUEST_MS,
    rule: rulesOf(slots, parts),
  };
  let isSent = false;
  let failures = 0;
  const undo = async (fault?: unknown) => {
    if (isSent) await Promise.all(parts.map((part) => part.undo(fault)));
  };
  const tryOnce = async (): Promise<Tried | undefined> => {
    const now = { limits, isAgain: isSent };
    const planned = await plan(parts, now, MOST_OPERATIONS - 2 * slots.length);
    if (planned.kind === 'left') return planned;
    // An earlier try took effect, but nobody knows how long ago: the slots have to be proved again.
    const lists = planned.kind === 'begun' ? [] : planned.steps;
    for (const { lease } of slots) lease.checkDeadline();
    either.throwIfAborted();
    isSent = true;
    const own = lists.flat();
    const steps = start(heldSeats(slots), own);
    const sentMs = clock.monotonicMs();
    // A try without an answer is sent again: it proves anew that the slots are held, and each part reads anew.
    const result = await send(consul, steps, limits);
    if (result.kind === 'done') {
      // A process that was stopped meanwhile may have lost a slot since: it has to prove again that it holds them.
      if (clock.monotonicMs() - sentMs > REQUEST_MS) return undefined;
      return { kind: 'begun' };
    }
    const part = listOf(lists, result.at - (steps.length - own.length));
    const refusal = part === undefined ? undefined : await parts[part]?.refused(result.key, now);
    return refusal === undefined || refusal.kind === 'again' ? undefined : refusal;
  };
  try {
    const isWorth = untilRefused(clock);
    const pauseMs = () => growingMs(failures++, AGAIN, random);
    const done = await untilDone(clock, { signal: limits.signal, pauseMs, isWorth }, tryOnce);
    if (done.kind === 'begun') {
      for (const part of parts) await part.begun?.();
      const causes = parts.map((part) => part.causes?.()).find((one) => one !== undefined);
      return { kind: 'begun', begun: { causes, undo } };
    }
    await giveUp();
    await undo();
    if (done.kind === 'left') await done.after?.();
    return done;
  } catch (error) {
    const lost = firstOver(slots, { over: over.signal, signal: either });
    const isLate = timeout.aborted && !either.aborted;
    const why = lastWord(consul, error);
    await giveUp();
    await undo(either.aborted ? undefined : error);
    if (lost) return { kind: 'lost', slot: lost };
    // The last fault was not what ended it.
    signal.throwIfAborted();
    if (!isLate) throw error;
    const code = isRunlockError(error) ? error.code : 'unreachable';
    throw new RunlockError(code, `${why}; nothing was started`, { cause: error });
  }
}

type Planned =
  | { readonly kind: 'planned'; readonly steps: readonly (readonly Step<string>[])[] }
  | Exclude<StartPlan, { kind: 'steps' }>;

/** Part by part: one that has seen an earlier try take effect, or does not want the run any more, decides for all. */
async function plan(parts: readonly StartPart[], now: StartTry, most: number): Promise<Planned> {
  const steps: (readonly Step<string>[])[] = [];
  let room = most;
  let causes: Causes | undefined;
  for (const part of parts) {
    const planned = await part.steps({ ...now, causes }, room);
    if (planned.kind !== 'steps') return planned;
    causes ??= part.causes?.();
    steps.push(planned.steps);
    room -= planned.steps.length;
  }
  return { kind: 'planned', steps };
}

/** With the sessions and claims as they are now: a lock may have been taken back since the grant. */
const heldSeats = (slots: HeldSlots) =>
  slots.map(({ lease }) => {
    const { context, session, slot, owner } = lease.holding();
    return { seat: { keys: context.keys, session: session.id, slot }, index: owner.index };
  });

/** The rights that the transaction needs, for a refusal. */
const rulesOf = (slots: HeldSlots, parts: readonly StartPart[]): string =>
  [...new Set([...slots.map(({ grant }) => grant.context.keys.rule), ...parts.map(({ rule }) => rule)])]
    .filter((rule) => rule !== '')
    .join(', ');
