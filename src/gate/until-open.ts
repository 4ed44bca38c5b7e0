/**
 * The one loop that waits without a slot (docs/adr/0033): for the gate, for conditions, for both. Each of them is a
 * reason; the watches of all wake the loop, and a look judges all.
 */
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { RetryOptions } from '../consul/consul.ts';
import { startWaiting, withoutWaiting } from '../platform/deps.ts';
import type { Clock, Waiting } from '../platform/deps.ts';
import { createBell } from './bell.ts';
import type { Bell } from './bell.ts';

/** Why a run may have to wait: a gate that is closed, conditions that are not met. */
export interface Reason {
  /** Reads everything now. */
  read(options: RetryOptions): Promise<void>;
  /** By what is known now. */
  isOpen(): boolean;
  /** How long it must have been open, in milliseconds; 0: one look is enough. */
  readonly stableMs: number;
  /** After how many milliseconds it may change by time alone; Infinity: never. */
  dueInMs(): number;
  /** Watches until `ended`, and rings when something has changed. May be called again. */
  follow(bell: Bell, ended: AbortSignal): void;
}

/** The end of the patience ends a wait that is not open. An open one still lasts until it counts as stable. */
export interface Looking extends Waiting {
  /** Until this aborts, a request that Consul does not answer is tried again. */
  readonly trying: AbortSignal;
  /** Called after every look. */
  readonly onLook?: (() => void) | undefined;
}

/**
 * Waits until all reasons are open in two looks, as far apart as each of them asks, and none was seen closed in between.
 * @param reasons at least one.
 * @returns when they were last seen open, in monotonic milliseconds; undefined: not all were when the patience ended.
 * @throws RunlockError when Consul refuses, or does not answer at the end of the patience; the signal's reason.
 */
export async function untilOpen(
  clock: Clock,
  reasons: readonly Reason[],
  looking: Looking,
): Promise<number | undefined> {
  const { signal, patience, either, onLook } = looking;
  const bell = createBell(clock);
  const done = new AbortController();
  const stop = () => done.abort(signal.reason);
  signal.addEventListener('abort', stop, { once: true });
  const isOver = (error: unknown) => !signal.aborted && patience.aborted && error === patience.reason;
  const sinceMs = new Map<Reason, number>();
  try {
    await readNow(reasons, looking);
    for (let fresh = true; ;) {
      onLook?.();
      const nowMs = clock.monotonicMs();
      for (const reason of reasons)
        if (!reason.isOpen()) sinceMs.delete(reason);
        else if (!sinceMs.has(reason)) sinceMs.set(reason, nowMs);
      const isOpen = sinceMs.size === reasons.length;
      const stableAtMs = Math.max(...reasons.map((one) => (sinceMs.get(one) ?? nowMs) + one.stableMs));
      if (isOpen && fresh && nowMs >= stableAtMs) return nowMs;
      if (!isOpen && patience.aborted) return undefined;
      for (const reason of reasons) reason.follow(bell, done.signal);
      const leftMs = isOpen ? stableAtMs - nowMs : Math.min(...reasons.map((one) => one.dueInMs()));
      const heard = await bell.next(Math.max(0, leftMs), isOpen ? signal : either).catch((error: unknown) => {
        if (isOver(error)) return 'over' as const;
        throw error;
      });
      // Without a change, read everything again: the agent may have been stopped since the last answer.
      fresh = heard !== 'change';
      if (fresh) await readNow(reasons, looking);
    }
  } finally {
    signal.removeEventListener('abort', stop);
    done.abort();
  }
}

/** How long to wait for Consul's answer. Then Consul is asked once more, as at the first contact. */
const ANSWER_MS = 30_000;

/**
 * As `untilOpen`, for a run that has its slots: waits for nothing but Consul's answer, and not long for that, because
 * other runs wait for the slots.
 * @param trying by default already aborted.
 */
export async function confirmAll(
  clock: Clock,
  reasons: readonly Reason[],
  { signal, trying = AbortSignal.abort(), onLook }: Confirming,
): Promise<number | undefined> {
  const late = startWaiting(clock, ANSWER_MS, trying);
  try {
    return await untilOpen(clock, reasons, { ...withoutWaiting(signal), trying: late.either, onLook });
  } finally {
    late.end();
  }
}

export interface Confirming extends Pick<Looking, 'signal' | 'onLook'> {
  readonly trying?: AbortSignal | undefined;
}

/** Reads everything now. Retries until `trying` aborts, then asks Consul once more, as at the first contact. */
async function readNow(reasons: readonly Reason[], { signal, trying }: Looking): Promise<void> {
  const readAll = (options: RetryOptions) => Promise.all(reasons.map((reason) => reason.read(options)));
  if (!trying.aborted) {
    const isOver = (error: unknown) => !signal.aborted && error === trying.reason;
    const answered = await readAll({ signal: AbortSignal.any([signal, trying]) }).then(
      () => true,
      (error: unknown) => {
        if (isOver(error)) return false;
        throw error;
      },
    );
    if (answered) return;
  }
  await readAll({ signal, ...FIRST_CONTACT });
}
