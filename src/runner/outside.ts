/**
 * A run that waits without a slot, for its gate, its conditions, or both, and its way from there to its slots
 * (docs/adr/0033). No slot is ever held while one of these is not open. Loaded for such runs only.
 */
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import type { Verdict } from '../gate/decide.ts';
import { describeClosed } from '../gate/describe.ts';
import { confirmAll, untilOpen } from '../gate/until-open.ts';
import type { Confirming } from '../gate/until-open.ts';
import type { SeenKey } from '../lock/transactions.ts';
import type { Waiting } from '../platform/deps.ts';
import type { Begun, Beginning } from './begin.ts';
import type { RunGate } from './gate-session.ts';
import { takeWhileOpen } from './in-queue.ts';
import type { LeftQueue } from './in-queue.ts';
import type { ExecDeps } from './options.ts';
import type { WaitRecord } from './outside-record.ts';
import { showWait } from './outside-shown.ts';
import type { Leaving } from './part.ts';
import { declineAll, firstOver, hear } from './slots.ts';
import type { HeldSlots, Taken } from './slots.ts';
import type { ConditionReason, RunConditions } from './when.ts';

/** The gate was closed, or conditions were not met, when patience ended. */
export interface Closed {
  readonly kind: 'closed';
  /** Of the gate; none if the run has none. */
  readonly verdicts: readonly Verdict[];
  /** Each condition that is not met, and its current value. */
  readonly missing: readonly string[];
}

export type Entered =
  | Exclude<Taken, { kind: 'taken' }>
  /** `begun`: what the start of the command has set. */
  | { readonly kind: 'taken'; readonly slots: HeldSlots; readonly begun?: Begun }
  | Leaving
  | Closed;

/** Sends `start` with all slots held; unless the run may start, all are given up. */
export type StartRun = (
  slots: HeldSlots,
  conditions: readonly SeenKey[],
) => Promise<Extract<Entered, { kind: 'taken' | 'lost' | 'left' }> | Extract<Beginning, { kind: 'changed' }>>;

/** What a run waits for without a slot. */
export interface Outside {
  readonly run: string;
  /** Their names, for the log. */
  readonly group: string;
  readonly gate: RunGate | undefined;
  readonly conditions: RunConditions | undefined;
  readonly record: Pick<WaitRecord, 'during'>;
  readonly waiting: Waiting;
}

export interface FromOutside extends Outside {
  /** Asks for all slots once. */
  readonly take: (waiting: Waiting) => Promise<Taken>;
  /** Undefined: nothing has to be proved or told at the start of the command. */
  readonly starts: StartRun | undefined;
  /** Gives the node's turn back: another run of it may go on while this one waits outside. */
  readonly leaveTurn: () => void;
}

/**
 * Asks for the slots once everything is open, and looks at it again with the slots held, before anything is changed. If
 * something is not open by then, releases the slots at once and starts over. Unless all slots are taken, everything is
 * left as it was before.
 * @throws the signal's reason when it aborts; RunlockError for a fault that ends the wait for a slot.
 */
export function enterFromOutside(deps: ExecDeps, from: FromOutside): Promise<Entered> {
  const { gate, waiting, take } = from;
  return tryFromOutside(deps, from, async () => {
    const taken = gate ? await takeWhileOpen(deps, gate, { waiting, take }) : await take(waiting);
    const entered = taken.kind === 'taken' ? await goThrough(deps, from, taken.slots) : taken;
    if (entered.kind !== 'taken') from.leaveTurn();
    return entered;
  });
}

type Effects = Pick<ExecDeps, 'clock' | 'random' | 'emit' | 'terminal'>;

/** Pause between two tries, so that conditions that turn false with each grant do not keep the group busy. */
const AGAIN: Growth = { shortestMs: 1_000, longestMs: 30_000 };

/**
 * Waits outside and then calls `tryOnce`, until that comes back with something else than that all was given up again, or
 * patience has ended.
 */
export async function tryFromOutside<T extends { readonly kind: string }>(
  deps: Effects,
  outside: Outside,
  tryOnce: () => Promise<T | Closed | LeftQueue>,
): Promise<T | Closed> {
  const { waiting, record } = outside;
  let pauseMs = 0;
  for (let tries = 0; ;) {
    const closed = await record.during(waiting, async () => {
      if (pauseMs > 0) await pause(deps, pauseMs, waiting);
      return waitOutside(deps, outside);
    });
    if (closed) return closed;
    pauseMs = 0;
    const tried = await tryOnce();
    if (!isOutAgain(tried)) return tried;
    emitOutAgain(deps, outside, tried);
    const { verdicts, missing } = tried;
    if (waiting.patience.aborted) return { kind: 'closed', verdicts, missing };
    if (missing.length > 0) pauseMs = growingMs(tries++, AGAIN, deps.random);
  }
}

const isOutAgain = (tried: { readonly kind: string }): tried is Closed | LeftQueue =>
  tried.kind === 'closed' || tried.kind === 'left-queue';

/** Waits for all reasons; undefined: all are open. */
async function waitOutside(deps: Effects, outside: Outside): Promise<Closed | undefined> {
  const { gate, conditions, run, waiting } = outside;
  const reason = conditions?.all();
  const also = reason ? [reason] : [];
  const shown = showWait(deps, { node: gate?.node, run, quiet: waiting.patience.aborted });
  const onLook = (verdicts: readonly Verdict[]) => {
    if (reason) conditions?.tell(reason);
    shown.look(verdicts, reason?.missing() ?? []);
  };
  try {
    if (gate) {
      const verdicts = await gate.waitOutside({ ...waiting, also, onLook });
      return verdicts && { kind: 'closed', verdicts, missing: reason?.missing() ?? [] };
    }
    const looking = { ...waiting, trying: waiting.patience, onLook: () => onLook([]) };
    const isOpen = !reason || (await untilOpen(deps.clock, [reason], looking)) !== undefined;
    return isOpen ? undefined : { kind: 'closed', verdicts: [], missing: reason.missing() };
  } finally {
    shown.end();
  }
}

async function pause({ clock }: Effects, ms: number, { signal, either }: Waiting): Promise<void> {
  await clock.sleep(ms, { signal: either }).catch(() => signal.throwIfAborted());
}

/** All slots are held from here on. Unless the run may start its command, they are given up. */
async function goThrough(deps: ExecDeps, from: FromOutside, slots: HeldSlots): Promise<Entered> {
  const { gate, conditions, starts, waiting } = from;
  const over = new AbortController();
  for (const { lease } of slots) hear(lease.over, () => over.abort());
  const either = AbortSignal.any([waiting.signal, over.signal]);
  const giveUp = async () => {
    await gate?.backOut();
    await declineAll(deps, slots);
  };
  let seen: readonly SeenKey[];
  try {
    const looked = await lookInside(deps, from, { signal: either, patience: waiting.patience });
    if (looked.kind === 'closed') {
      await giveUp();
      return looked;
    }
    ({ seen } = looked);
  } catch (error) {
    const lost = firstOver(slots, { over: over.signal, signal: either });
    await giveUp();
    if (lost) return { kind: 'lost', slot: lost };
    throw error;
  }
  if (!starts) return { kind: 'taken', slots };
  const started = await starts(slots, seen);
  if (started.kind !== 'changed') return started;
  return { kind: 'closed', verdicts: [], missing: [conditions?.changed(started.key) ?? started.key] };
}

export type Looked = Closed | { readonly kind: 'open'; readonly seen: readonly SeenKey[] };

/**
 * The looks with all slots held: at the gate and all conditions, before the node goes out of service; then, which may
 * be a minute later, at the states alone, since going out of service can itself make `healthy:` false.
 */
async function lookInside(
  { clock }: ExecDeps,
  { gate, conditions }: FromOutside,
  { signal, patience }: Pick<Waiting, 'signal' | 'patience'>,
): Promise<Looked> {
  const all = conditions?.all();
  const confirming = { signal, trying: patience };
  if (!gate) return lookAt(clock, all, confirming);
  const verdicts = await gate.goThrough({ signal, patience, also: all ? [all] : [] });
  if (verdicts) return { kind: 'closed', verdicts, missing: all?.missing() ?? [] };
  return lookAt(clock, conditions?.onStates(), confirming);
}

/** One look at conditions, with all slots held; undefined: there are none. */
export async function lookAt(
  clock: ExecDeps['clock'],
  reason: ConditionReason | undefined,
  confirming: Confirming,
): Promise<Looked> {
  if (!reason) return { kind: 'open', seen: [] };
  if ((await confirmAll(clock, [reason], confirming)) !== undefined)
    return { kind: 'open', seen: reason.states() };
  return { kind: 'closed', verdicts: [], missing: reason.missing() };
}

/** What was given up again: all slots, or the place in the queue. */
function emitOutAgain(
  { emit }: Effects,
  { run, group, gate }: Outside,
  { kind, verdicts, missing }: Closed | LeftQueue,
): void {
  const event = kind === 'closed' ? 'gate-gave-way' : 'gate-left-queue';
  const closed = gate ? describeClosed(verdicts, gate.node) : '';
  if (gate && closed !== '') emit({ event, node: gate.node, run, detail: { closed } });
  if (missing.length > 0) emit({ event: 'when-gave-way', run, group, missing });
}
