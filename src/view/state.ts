/** The state of a group, in one word. Pure. */
import { assertNever } from '../errors.ts';
import { keepsOutForMs } from '../lock/decide.ts';
import type {
  FreezeView,
  GroupState,
  OutsideView,
  PlaceView,
  ReturningView,
  SlotView,
  WaiterView,
} from './report.ts';

/** The facts that a group's state depends on. */
export interface StateFacts {
  readonly group: string;
  readonly slots: readonly SlotView[];
  readonly queue: readonly WaiterView[];
  readonly returning?: readonly ReturningView[];
  readonly outside?: readonly OutsideView[];
  readonly frozen?: FreezeView;
}

export interface StateOptions {
  /** Wall-clock milliseconds. */
  readonly now: number;
  /** A freeze key applies that can't be read. It stops new runs, like a readable one. */
  readonly unreadableFreeze?: boolean;
  /** Groups that are blocked (`blockedGroups`): a run of this group may wait in one of them. */
  readonly blocked?: ReadonlySet<string>;
}

/**
 * The first of these that applies:
 * - `blocked`: each slot is kept by a claim without a live run, or by a run that waits in a blocked group; waiting does
 *   not help. Slots that were never used are unknown, so they don't count as free.
 * - `frozen`: no new run starts, because of the group's own freeze or one above.
 * - `waiting`: a run waits.
 * - `running`: a slot is not free: it has a run, a node that reboots or holds it by `acquire`, or a claim that keeps it.
 * - `idle`: every slot is free.
 */
export function groupState(facts: StateFacts, options: StateOptions): GroupState {
  const { slots, queue, returning = [], outside = [], frozen } = facts;
  if (blockedGroups([facts], options).has(facts.group)) return 'blocked';
  if (frozen || options.unreadableFreeze === true) return 'frozen';
  if (queue.length + returning.length + outside.length > 0) return 'waiting';
  return slots.some(({ state }) => state !== 'free') ? 'running' : 'idle';
}

/**
 * The groups whose slots are all stuck: kept, or taken by a run that waits in a blocked group. Takes linear time, even if
 * someone wrote keys by hand so that groups wait for each other in a circle, which alone does not block them.
 */
export function blockedGroups(
  all: readonly StateFacts[],
  { now, blocked: known = new Set() }: Pick<StateOptions, 'now' | 'blocked'>,
): ReadonlySet<string> {
  const blocked = new Set(known);
  /** How many slots of each group may still move. */
  const open = new Map<string, number>();
  /** By group: the groups of the slots whose runs wait there. */
  const behind = new Map<string, { readonly group: string; readonly slot: number }[]>();
  const stuck = new Set<string>();
  const fresh: string[] = [...known];
  const close = (group: string, slot: number) => {
    const name = `${group} ${slot}`;
    if (stuck.has(name)) return;
    stuck.add(name);
    const left = (open.get(group) ?? 0) - 1;
    open.set(group, left);
    if (left > 0 || blocked.has(group)) return;
    blocked.add(group);
    fresh.push(group);
  };
  for (const { group, slots } of all) open.set(group, slots.length);
  for (const { group, slots, returning = [] } of all) {
    // If the node is back, its next run takes the claim over.
    const back = new Set(returning.map(({ node }) => node));
    for (const [i, slot] of slots.entries()) {
      if (slot.node !== undefined && back.has(slot.node)) continue;
      if (isKept(slot, now)) close(group, i);
      else if (slot.state === 'running')
        for (const there of (slot.also ?? []).flatMap(waitingAt)) pushTo(behind, there, { group, slot: i });
    }
  }
  for (let next = fresh.pop(); next !== undefined; next = fresh.pop())
    for (const { group, slot } of behind.get(next) ?? []) close(group, slot);
  return blocked;
}

function pushTo<T>(lists: Map<string, T[]>, name: string, value: T): void {
  const list = lists.get(name);
  if (list) list.push(value);
  else lists.set(name, [value]);
}

/** The group where the run waits, while it has a slot here. */
export const waitingAt = (place: PlaceView): string[] => ('place' in place ? [place.group] : []);

/**
 * Whether the slot's claim has no live run behind it. A node that reboots, or holds its slot by `acquire`, counts as
 * live. A hold with an end counts until that end.
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
