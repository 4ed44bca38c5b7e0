/** What state a group is in, in one word. Pure. */
import { assertNever } from '../errors.ts';
import { keepsOutForMs } from '../lock/decide.ts';
import type { FreezeView, GroupState, PlaceView, ReturningView, SlotView, WaiterView } from './report.ts';

/** What of a group its state depends on. */
export interface StateFacts {
  readonly group: string;
  readonly slots: readonly SlotView[];
  readonly queue: readonly WaiterView[];
  readonly returning?: readonly ReturningView[];
  readonly frozen?: FreezeView;
}

export interface StateOptions {
  /** Wall-clock milliseconds. */
  readonly now: number;
  /** A freeze key applies that can't be read: it stops new runs as any other. */
  readonly unreadableFreeze?: boolean;
  /** Another group, where a run of this one may wait; undefined: nothing is known of it. */
  readonly other?: ((group: string) => StateFacts | undefined) | undefined;
}

/**
 * The first that is true:
 * - `blocked`: every slot is kept by a claim that nothing alive stands behind, or by a run that waits in a blocked
 * group
 *   meanwhile; waiting does not help. Slots that nobody ever used are not known, so they don't count as free.
 * - `frozen`: no new run starts, by its own freeze or one above it.
 * - `waiting`: a run waits.
 * - `running`: a slot is not free: a run, or a node that reboots or holds it by `acquire`, or a claim that keeps some
 * slots. - `idle`: every slot is free.
 */
export function groupState(facts: StateFacts, options: StateOptions): GroupState {
  const { slots, queue, returning = [], frozen } = facts;
  if (isBlocked(facts, options, [facts.group])) return 'blocked';
  if (frozen || options.unreadableFreeze === true) return 'frozen';
  if (queue.length + returning.length > 0) return 'waiting';
  return slots.some(({ state }) => state !== 'free') ? 'running' : 'idle';
}

/** @param seen groups followed so far, to stop at circles, which exist only if a person wrote keys by hand. */
function isBlocked(
  { slots, returning = [] }: StateFacts,
  options: StateOptions,
  seen: readonly string[],
): boolean {
  const isStuck = (slot: SlotView): boolean => {
    // If the node is back, its next run takes the claim over.
    if (returning.some(({ node }) => node === slot.node)) return false;
    if (isKept(slot, options.now)) return true;
    if (slot.state !== 'running') return false;
    return (slot.also ?? []).flatMap(waitingAt).some((name) => {
      const there = seen.includes(name) ? undefined : options.other?.(name);
      return there !== undefined && isBlocked(there, options, [...seen, name]);
    });
  };
  return slots.length > 0 && slots.every(isStuck);
}

/** The group where the run waits, while it has a slot here. */
export const waitingAt = (place: PlaceView): string[] => ('place' in place ? [place.group] : []);

/**
 * Whether nothing alive stands behind the slot's claim. A node that reboots, and one that holds its slot by `acquire`,
 * are under way. A hold that ends counts until it does.
 */
export function isKept(slot: SlotView, now: number): boolean {
  switch (slot.state) {
    case 'running':
    case 'evicted':
      return !slot.alive;
    case 'failed':
    case 'interrupted':
    case 'abandoned':
      return !isOver(slot, now);
    case 'unreadable':
      return true;
    case 'free':
    case 'locked':
    case 'held':
    case 'rebooting':
      return false;
    default:
      return assertNever(slot.state);
  }
}

/** Whether the claim's hold has ended, so that the first in the queue takes it over. */
export function isOver(slot: SlotView, now: number): boolean {
  const { state, alive } = slot;
  return !alive && state !== 'running' && state !== 'evicted' && keepsOutForMs(slot, now) <= 0;
}
