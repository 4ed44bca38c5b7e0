/** Explains a group in one sentence: why it is blocked, or that it moves or is idle, and what to do. Pure. */
import { assertNever } from '../errors.ts';
import { hint } from '../text/suggested-command.ts';
import { keepsOutForMs } from '../lock/decide.ts';
import { groupKeys } from '../lock/keys.ts';
import { formatAge, momentText } from '../text/age.ts';
import { endedText } from '../text/ended.ts';
import { frozenName } from '../text/frozen.ts';
import { missingOf } from './outside.ts';
import { isKept } from './state.ts';
import { leftOnText } from './leftover-maintenance.ts';
import type { FreezeView, GroupView, SlotView } from './report.ts';

export type GroupFacts = Omit<GroupView, 'state' | 'why' | 'next' | 'fix'>;

export interface ExplainOptions {
  readonly prefix: string;
  /** Wall-clock milliseconds. */
  readonly now: number;
  /** A freeze key applies that can't be read. It stops new runs, like a readable one. */
  readonly unreadableFreeze?: boolean;
  /** The explanation of another group, where a run that holds a slot here waits; undefined: it is left out. */
  readonly other?: (group: string) => Explanation | undefined;
}

export interface Explanation {
  readonly why: string;
  /** What to do, in a sentence. */
  readonly next?: string;
  /** A command to copy. Never one that could let two runs overlap. */
  readonly fix?: string;
}

export function explain(facts: GroupFacts, options: ExplainOptions): Explanation {
  const { prefix, now, unreadableFreeze = false } = options;
  const unused = `group ${facts.group} has not been used yet (or this token may not read it)`;
  if (facts.frozen) {
    const frozen = explainFreeze(facts, facts.frozen, { prefix, now });
    // A freeze must not hide that the name may be wrong, or what a thaw will not end.
    const also = facts.known
      ? summary(
          facts.slots.filter((slot) => isKept(slot, now)),
          now,
          'held',
        )
      : [unused];
    return { ...frozen, why: [frozen.why, ...also].join('; ') };
  }
  if (unreadableFreeze) return { why: "no new runs: a freeze key is set that can't be read (see problems)" };
  if (!facts.known) return { why: unused };
  return explainSlots(facts, options);
}

type Waited = Pick<GroupFacts, 'group' | 'queue' | 'returning' | 'outside'>;

/** Counts the queue, and the runs that wait outside it: for their node's claim, their conditions or their gate. */
export const waitersOf = ({ queue, returning = [], outside = [] }: Omit<Waited, 'group'>): number =>
  queue.length + returning.length + outside.length;

/** Of a group, or of all there is. */
export function explainFreeze(
  facts: Waited,
  freeze: FreezeView,
  { prefix, now }: ExplainOptions,
): Omit<Required<Explanation>, 'next'> {
  const fix = hint(prefix, 'thaw', freeze.at === '' ? '/' : freeze.at);
  return { why: freezeSentence(facts, freeze, now), fix };
}

function freezeSentence({ group, ...waited }: Waited, freeze: FreezeView, now: number): string {
  const what = frozenName(freeze.at, group);
  const until = freeze.until === undefined ? 'until thawed' : momentText(freeze.until, now);
  return [
    `${what} was frozen ${age(freeze.since, now)} ago by ${freeze.by} (${freeze.reason})`,
    `no new runs ${until}`,
    ...(waitersOf(waited) > 0 ? [waitText(waitersOf(waited))] : []),
  ].join('; ');
}

function explainSlots(facts: GroupFacts, { prefix, now, other }: ExplainOptions): Explanation {
  const { group, slots, queue, returning = [], outside = [] } = facts;
  const open = slots.filter((slot) => isOpen(slot, now));
  const moving = slots.filter((slot) => isMoving(slot));
  const stuck = slots.filter((slot) => !isOpen(slot, now) && !isMoving(slot));
  const next = open[0];
  // Asked once: each answer may ask for the next group.
  const [waits] = moving.flatMap(waitsIn);
  const there = waits && other?.(waits.group);
  const parts = [
    ...(next && queue.length > 0 ? [grantText(facts, next)] : []),
    ...summary(stuck, now, 'held'),
    ...summary(moving, now, 'taken', there?.why),
    ...(queue.length === 0 ? summary(pastHold(open), now, 'no longer held') : []),
    ...returning.map(({ node, why: what }) => `${node} is waiting to run again: ${what}`),
    ...(!next && queue.length > 0 ? [waitText(queue.length)] : []),
    ...outsideText(outside),
  ];
  const why = parts.length > 0 ? parts.join('; ') : 'idle: nothing running or waiting';
  const kept = stuck.find((slot) => slot.node !== undefined);
  const isBack = returning.some(({ node }) => node === kept?.node);
  if (kept && !isBack) return { why, ...whatToDo(kept, { prefix, group }) };
  if (kept)
    return { why, next: `wait: ${kept.node ?? '?'} is back, and its claim is cleared when its run succeeds` };
  const { next: then, fix } = there ?? {};
  return { why, ...(then !== undefined && { next: then }), ...(fix !== undefined && { fix }) };
}

/** Gives a command only where clearing the claim can't let two nodes change at once (docs/adr/0019). */
function whatToDo(
  slot: SlotView,
  { prefix, group }: { prefix: string; group: string },
): Omit<Explanation, 'why'> {
  const { node = '?', command = '?', state } = slot;
  // A run that has ended holds no lock, so somebody else's session does.
  if (slot.alive && state !== 'running' && state !== 'evicted') {
    const key = groupKeys(prefix, group).lock(slot.slot);
    return {
      next: `a session that belongs to no run holds ${key}, so slot ${slot.slot} can't be used or cleared: find out who created the session ('consul kv get -detailed ${key}'), then delete the key with 'consul kv delete ${key}'`,
    };
  }
  switch (state) {
    case 'failed':
      return {
        next: `repair ${node} and run it again, or clear its claim`,
        fix: hint(prefix, 'release', group, '--owner', node),
      };
    case 'interrupted':
      return {
        next: `wait for the next run of ${node}, which takes the slot back, or start a run on ${node}`,
      };
    case 'rebooting':
      return { next: `wait for the next run of ${node}; if ${node} does not come back, check it` };
    case 'held':
      return { next: `wait until ${node} releases the slot, or ask the people who work on ${placeOf(slot)}` };
    case 'running':
    case 'evicted':
    case 'abandoned':
      return {
        next: `check ${placeOf(slot)} first: ${command} may still be running there; once ${command} has ended, run ${node} again, or clear its claim with 'runlock release' (asks for confirmation)`,
      };
    case 'free':
    case 'locked':
    case 'unreadable':
      return {};
    default:
      return assertNever(state);
  }
}

/** The node, with its host where the names differ: hosts can share a node name, or run for another node. */
function placeOf({ node = '?', host }: SlotView): string {
  const label = (name: string) => name.toLowerCase().split('.')[0];
  return host === undefined || label(host) === label(node) ? node : `${node} (on ${host})`;
}

/** Whether the first in the queue may have the slot now. */
function isOpen(slot: SlotView, now: number): boolean {
  const { state, alive } = slot;
  if (state === 'free') return true;
  if (alive || state === 'unreadable' || state === 'running' || state === 'evicted') return false;
  return keepsOutForMs(slot, now) <= 0;
}

/** Whether the slot comes free by itself when its run ends. */
function isMoving({ state, alive }: SlotView): boolean {
  return alive && (state === 'running' || state === 'evicted' || state === 'locked');
}

function pastHold(open: readonly SlotView[]): SlotView[] {
  return open.filter(({ state }) => state !== 'free');
}

/** The group where the slot's run waits, while it holds the slot. */
function waitsIn({ also = [] }: SlotView): { group: string; place: number }[] {
  return also.flatMap((place) => ('place' in place ? [place] : []));
}

/** @param whyThere why the group is blocked, or moves, in which the run waits. */
function runningSentence(slot: SlotView, now: number, whyThere: string | undefined): string {
  const { node = '?', command = '?', since = '', also = [] } = slot;
  const name = `slot ${slot.slot}`;
  const [waits] = waitsIn(slot);
  if (waits) {
    const there = whyThere === undefined ? '' : ` (${whyThere})`;
    return `${name}: ${node} acquired the slot ${age(since, now)} ago and is waiting for a slot of ${waits.group}${there}`;
  }
  const others = also.map(({ group }) => group).join(', ');
  return `${name}: ${node} has been running ${command} for ${age(since, now)}${others === '' ? '' : `, also in ${others}`}`;
}

/** The first slot in a sentence, the others counted. */
function summary(
  slots: readonly SlotView[],
  now: number,
  word: 'held' | 'taken' | 'no longer held',
  whyThere?: string,
): string[] {
  const [first, ...more] = slots;
  if (!first) return [];
  const others =
    more.length === 0 ? '' : `; ${more.length} other ${more.length === 1 ? 'slot is' : 'slots are'} ${word}`;
  return [slotSentence(first, now, whyThere) + others];
}

function slotSentence(slot: SlotView, now: number, whyThere: string | undefined): string {
  const { node = '?', command = '?', since = '' } = slot;
  const name = `slot ${slot.slot}`;
  const ended = endedText(slot);
  switch (slot.state) {
    case 'free':
      return `${name}: free`;
    case 'running':
      if (!slot.alive) return goneSentence(slot, now);
      return runningSentence(slot, now, whyThere);
    case 'failed':
      return `${name}: ${node} failed ${age(since, now)} ago (${ended})${leftText(slot)}${holds(slot, now)}`;
    case 'interrupted':
      return `${name}: ${node} was interrupted by a signal ${age(since, now)} ago (${ended})${leftText(slot)}${holds(slot, now)}`;
    case 'rebooting':
      return `${name}: ${node} has been rebooting for ${age(since, now)} (${ended})${holds(slot, now)}`;
    case 'held':
      return `${name}: ${node} acquired the slot ${age(since, now)} ago with 'runlock acquire'${holds(slot, now)}`;
    case 'abandoned':
      return `${name}: ${node} vanished ${age(since, now)} ago while running ${command}${holds(slot, now)}`;
    case 'evicted':
      if (!slot.alive) return goneSentence(slot, now);
      return `${name}: ${slot.by ?? 'an operator'} evicted ${node}; the slot is released once ${command} has ended`;
    case 'locked':
      return `${name}: locked by a run whose claim is missing; that run claims the slot again or stops`;
    case 'unreadable':
      return `${name}: its claim can't be read, so no run can use the slot (see problems)`;
    default:
      return assertNever(slot.state);
  }
}

/** Shown because the node gets no traffic until a run that names the same services succeeds. */
const leftText = ({ maintenance }: SlotView) =>
  maintenance ? `, left ${leftOnText(maintenance)} in maintenance` : '';

function holds(slot: SlotView, now: number): string {
  if (slot.heldUntil !== undefined)
    return isOpen(slot, now)
      ? '; its hold has expired'
      : ` and holds the slot ${momentText(slot.heldUntil, now)}, unless released first`;
  if (slot.state === 'held') return ' and holds the slot until released';
  return ' and holds the slot until a run succeeds or the claim is cleared';
}

/** A claim of a live run whose session is gone. */
function goneSentence(
  { slot, node = '?', command = '?', hold, missingSince }: SlotView,
  now: number,
): string {
  const after =
    hold === 'none' ? 'the next run in the queue takes the slot' : 'the claim counts as abandoned';
  const when =
    missingSince === undefined
      ? '60s after a waiting run notices this,'
      : `a waiting run noticed this ${age(missingSince, now)} ago; 60s after that,`;
  return (
    `slot ${slot}: ${node} has vanished or is cut off from Consul, and ${command} may still be running there; ` +
    `the next run of ${node} takes the slot back; ${when} ${after}`
  );
}

function grantText({ queue }: GroupFacts, slot: SlotView): string {
  const [first] = queue;
  const who = first?.place === 1 ? first.node : 'the first run in the queue';
  const behind = queue.length === 1 ? '' : ` (${waitText(queue.length)})`;
  return `${who} is next for slot ${slot.slot}${behind}`;
}

/** The first run in a sentence with the first thing that it waits for, the others counted. */
function outsideText([first, ...more]: NonNullable<Waited['outside']>): string[] {
  if (!first) return [];
  const [what, ...rest] = missingOf(first);
  const also = rest.length === 0 ? '' : ` (and ${rest.length} more)`;
  const self =
    what === undefined
      ? `${first.node} is about to ask for a slot`
      : `${first.node} is waiting for ${what}${also}`;
  if (more.length === 0) return [self];
  const count = more.length.toLocaleString('en-US');
  return [`${self}; ${count} more ${more.length === 1 ? 'run is' : 'runs are'} waiting without a slot`];
}

function waitText(count: number): string {
  return count === 1 ? '1 run waiting' : `${count.toLocaleString('en-US')} runs waiting`;
}

function age(since: string, now: number): string {
  return formatAge(now - Date.parse(since));
}
