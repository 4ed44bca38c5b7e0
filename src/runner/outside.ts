/**
 * A run that waits without a slot, for its gate, its conditions, or both, and its way from there to its slots
 * (docs/adr/0033). No slot is ever held while one of these is not open. Loaded for such runs only.
 */
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import type { Verdict } from '../gate/decide.ts';
import { describeClosed } from '../gate/describe.ts';
import { confirmAll, untilOpen } from '../gate/until-open.ts';
import type { SeenKey } from '../lock/transactions.ts';
import type { Waiting } from '../platform/deps.ts';
import type { Begun, Beginning } from './begin.ts';
import type { RunGate } from './gate-session.ts';
import { takeWhileOpen } from './in-queue.ts';
import type { ExecDeps } from './options.ts';
import type { WaitRecord } from './outside-record.ts';
import { showOutside } from './outside-shown.ts';
import { declineAll, firstOver, hear } from './slots.ts';
import type { HeldSlots, Taken } from './slots.ts';
import type { RunConditions } from './when.ts';

/** The gate was closed, or conditions were not met, when patience ended. */
export interface Closed {
  readonly kind: 'closed';
  /** Of the gate; none if the run has none. */
  readonly verdicts: readonly Verdict[];
  /** Each condition that is not met, and what holds instead. */
  readonly missing: readonly string[];
}

export type Entered =
  | Exclude<Taken, { kind: 'taken' }>
  /** `begun`: what the start of the command has set. */
  | { readonly kind: 'taken'; readonly slots: HeldSlots; readonly begun?: Begun }
  | Closed;

/** Sends `start` with all slots held; unless the run may start, all are given up. */
export type StartRun = (
  slots: HeldSlots,
  conditions: readonly SeenKey[],
) => Promise<Extract<Entered, { kind: 'taken' | 'lost' }> | Extract<Beginning, { kind: 'changed' }>>;

/** What a run waits for without a slot. */
export interface Outside {
  readonly run: string;
  /** Their names, for the log. */
  readonly group: string;
  readonly gate: RunGate | undefined;
  readonly conditions: RunConditions | undefined;
  readonly record: WaitRecord;
}

export interface FromOutside extends Outside {
  readonly waiting: Waiting;
  /** Asks for all slots once. */
  readonly take: (waiting: Waiting) => Promise<Taken>;
  /** Undefined: nothing has to be proved or told at the start of the command. */
  readonly starts: StartRun | undefined;
}

/** Pause between two tries, so that conditions that turn false with each grant do not keep the group busy. */
const AGAIN: Growth = { shortestMs: 1_000, longestMs: 30_000 };

/**
 * Waits outside, asks for the slots, and looks at everything again with the slots held, before anything is changed. If
 * something is not open by then, releases the slots at once and starts over. Unless all slots are taken, everything is
 * left as it was before.
 * @throws the signal's reason when it aborts; RunlockError for a fault that ends the wait for a slot.
 */
export async function enterFromOutside(deps: ExecDeps, from: FromOutside): Promise<Entered> {
  const { waiting, gate, take } = from;
  const { patience } = waiting;
  let pauseMs = 0;
  for (let tries = 0; ;) {
    const closed = await from.record.during(waiting, async () => {
      if (pauseMs > 0) await pause(deps, pauseMs, waiting);
      return waitOutside(deps, from, waiting);
    });
    if (closed) return closed;
    pauseMs = 0;
    const taken = gate ? await takeWhileOpen(deps, gate, { waiting, take }) : await take(waiting);
    if (taken.kind === 'left-queue') {
      emitGate(deps, 'gate-left-queue', { ...from, verdicts: taken.verdicts });
      if (patience.aborted) return { kind: 'closed', verdicts: taken.verdicts, missing: [] };
      continue;
    }
    if (taken.kind !== 'taken') return taken;
    const entered = await goThrough(deps, from, taken.slots);
    if (entered.kind !== 'closed') return entered;
    emitGaveWay(deps, from, entered);
    if (patience.aborted) return entered;
    if (entered.missing.length > 0) pauseMs = growingMs(tries++, AGAIN, deps.random);
  }
}

/** Waits for all reasons; undefined: all are open. */
export async function waitOutside(
  deps: ExecDeps,
  outside: Omit<Outside, 'record'>,
  waiting: Waiting,
): Promise<Closed | undefined> {
  const { gate, conditions, run } = outside;
  const reason = conditions?.all();
  const also = reason ? [reason] : [];
  const shown = showOutside(deps, { node: gate?.node, run, quiet: waiting.patience.aborted });
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

async function pause({ clock }: ExecDeps, ms: number, { signal, either }: Waiting): Promise<void> {
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

/**
 * The looks with all slots held: at the gate and all conditions, before the node goes out of service; then, which may
 * be a minute later, at the states alone, since going out of service can itself make `healthy:` false.
 */
async function lookInside(
  { clock }: ExecDeps,
  { gate, conditions }: FromOutside,
  { signal, patience }: Pick<Waiting, 'signal' | 'patience'>,
): Promise<Closed | { readonly kind: 'open'; readonly seen: readonly SeenKey[] }> {
  const all = conditions?.all();
  const confirming = { signal, trying: patience };
  if (!gate) {
    if (!all) return { kind: 'open', seen: [] };
    const isOpen = (await confirmAll(clock, [all], confirming)) !== undefined;
    return isOpen
      ? { kind: 'open', seen: all.states() }
      : { kind: 'closed', verdicts: [], missing: all.missing() };
  }
  const verdicts = await gate.goThrough({ signal, patience, also: all ? [all] : [] });
  if (verdicts) return { kind: 'closed', verdicts, missing: all?.missing() ?? [] };
  const states = conditions?.onStates();
  if (!states) return { kind: 'open', seen: [] };
  if ((await confirmAll(clock, [states], confirming)) !== undefined)
    return { kind: 'open', seen: states.states() };
  return { kind: 'closed', verdicts: [], missing: states.missing() };
}

function emitGaveWay(deps: ExecDeps, from: FromOutside, { verdicts, missing }: Closed): void {
  const { run, group } = from;
  if (verdicts.some(({ open }) => !open)) emitGate(deps, 'gate-gave-way', { ...from, verdicts });
  if (missing.length > 0) deps.emit({ event: 'when-gave-way', run, group, missing });
}

function emitGate(
  { emit }: ExecDeps,
  event: 'gate-left-queue' | 'gate-gave-way',
  { gate, run, verdicts }: Pick<Outside, 'gate' | 'run'> & { readonly verdicts: readonly Verdict[] },
): void {
  if (gate) emit({ event, node: gate.node, run, detail: { closed: describeClosed(verdicts, gate.node) } });
}
