/** Who holds the slots of a group that a run waits for, and what has changed since the last read. Pure. */
import { CLOCK_DIFFERENCE_MS, VANISHED_AFTER_MS } from '../lock/decide.ts';
import { formatAge } from '../text/age.ts';
import type { HolderView, SlotView } from './report.ts';
import { endedText } from '../text/ended.ts';

/** A slot, and since when it was seen without the session that its run should have, in monotonic milliseconds. */
export interface SeenSlot extends SlotView {
  readonly goneSinceMs?: number;
}

/** Remembers since when each run is without its session. */
export function observeSlots(
  before: readonly SeenSlot[],
  slots: readonly SlotView[],
  monotonicMs: number,
): SeenSlot[] {
  return slots.map((slot) => {
    if (!isGone(slot)) return slot;
    const known = before.find((other) => other.slot === slot.slot && other.run === slot.run);
    return { ...slot, goneSinceMs: known?.goneSinceMs ?? monotonicMs };
  });
}

const isGone = ({ state, alive }: SlotView) => !alive && (state === 'running' || state === 'evicted');

export interface Now {
  /** Wall-clock milliseconds: ages of records count from here. */
  readonly nowMs: number;
  readonly monotonicMs: number;
}

/** Holders that block the group come first. */
export function toHolders(slots: readonly SeenSlot[], { nowMs, monotonicMs }: Now): HolderView[] {
  const holders = slots.flatMap((slot): HolderView[] => {
    const { node, state, command = '', since = '', hold, goneSinceMs, missingSince } = slot;
    if (state === 'free' || state === 'locked' || state === 'unreadable' || node === undefined) return [];
    const view = { node, state, command, ageMs: nowMs - Date.parse(since) };
    if (goneSinceMs === undefined) return [view];
    const ownMs = monotonicMs - goneSinceMs;
    // The first run that saw the session missing recorded when, by its own clock, which may differ from ours.
    const markedMs = missingSince === undefined ? 0 : nowMs - Date.parse(missingSince);
    const leftMs = VANISHED_AFTER_MS - Math.max(ownMs, markedMs - CLOCK_DIFFERENCE_MS);
    return [{ ...view, gone: { forMs: Math.max(ownMs, markedMs), leftMs, then: afterGone(hold) } }];
  });
  const stands = ({ state, gone }: HolderView) => (state === 'running' && !gone ? 1 : 0);
  return holders.sort((a, b) => stands(a) - stands(b));
}

const afterGone = (hold: SlotView['hold']) => (hold === 'none' ? 'next' : 'abandoned');

/** One sentence for each slot whose owner or state has changed. */
export function changesOf(before: readonly SeenSlot[], after: readonly SeenSlot[]): ChangedSlot[] {
  const numbers = [...new Set([...before, ...after].map(({ slot }) => slot))].sort((a, b) => a - b);
  return numbers.flatMap((slot) => {
    const [was, now] = [before, after].map((slots) => slots.find((each) => each.slot === slot));
    if (standsAs(was) === standsAs(now)) return [];
    return [
      { slot, text: changeText(now), ...(now?.node !== undefined && { node: now.node, state: now.state }) },
    ];
  });
}

export interface ChangedSlot {
  readonly slot: number;
  readonly text: string;
  readonly node?: string;
  readonly state?: SlotView['state'];
}

const standsAs = (slot: SeenSlot | undefined) =>
  slot && slot.state !== 'free' ? `${slot.run} ${slot.state} ${isGone(slot)}` : '';

function changeText(slot: SeenSlot | undefined): string {
  if (!slot || slot.state === 'free') return 'free';
  const { node = 'unknown node', state, command = '?', hold } = slot;
  if (isGone(slot)) {
    const then =
      afterGone(hold) === 'next' ? 'the next run may take the slot' : 'the claim counts as abandoned';
    return `${node} lost its session, and ${command} may still be running there; ${then} in ${formatAge(VANISHED_AFTER_MS)}`;
  }
  if (state === 'running') return `${node} is running ${command}`;
  return `${node} ${state} (${endedText(slot)})`;
}
