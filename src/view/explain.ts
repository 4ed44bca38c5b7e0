/** One sentence on why a group stands still (or that it moves, or is idle), and what to do about it. Pure. */
import { assertNever } from '../errors.ts';
import { hint } from '../text/suggested-command.ts';
import { keepsOutForMs } from '../lock/decide.ts';
import { groupKeys } from '../lock/keys.ts';
import { formatAge, momentText } from '../text/age.ts';
import { endedText } from '../text/ended.ts';
import { isKept } from './state.ts';
import { leftOnText } from './leftover-maintenance.ts';
import type { FreezeView, GroupView, SlotView } from './report.ts';

export type GroupFacts = Omit<GroupView, 'state' | 'why' | 'next' | 'fix'>;

export interface ExplainOptions {
  readonly prefix: string;
  /** Wall-clock milliseconds. */
  readonly now: number;
  /** A freeze key applies that can't be read: it stops new runs as any other. */
  readonly unreadableFreeze?: boolean;
  /** Why another group stands still, for a run that waits there meanwhile; undefined: it was told already. */
  readonly other?: (group: string) => Explanation | undefined;
}

export interface Explanation {
  readonly why: string;
  /** What to do, in a sentence. */
  readonly next?: string;
  /** A command that is right as it stands: nothing overlaps whatever else is the case. */
  readonly fix?: string;
}

export function explain(facts: GroupFacts, options: ExplainOptions): Explanation {
  const { prefix, now, unreadableFreeze = false } = options;
  const unused = `nobody has used ${facts.group} yet (or this token may not read it)`;
  if (facts.frozen) {
    const frozen = explainFreeze(facts, facts.frozen, { prefix, now });
    // A freeze must not hide that the name may be wrong, or what a thaw will not end.
    const also = facts.known
      ? summary(
          facts.slots.filter((slot) => isKept(slot, now)),
          now,
          'kept',
        )
      : [unused];
    return { ...frozen, why: [frozen.why, ...also].join('; ') };
  }
  if (unreadableFreeze)
    return { why: 'no new run starts: a freeze key is set that cannot be read (see problems)' };
  if (!facts.known) return { why: unused };
  return explainSlots(facts, options);
}

type Waited = Pick<GroupFacts, 'group' | 'queue' | 'returning'>;

/** Those who come back to their node's claim wait too, in no queue. */
export const waitersOf = ({ queue, returning = [] }: Pick<GroupFacts, 'queue' | 'returning'>): number =>
  queue.length + returning.length;

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
  const what =
    freeze.at === '' ? 'everything' : freeze.at === group ? group : `${freeze.at}, and so ${group},`;
  const until = freeze.until === undefined ? 'until someone thaws it' : momentText(freeze.until, now);
  return [
    `${what} was frozen ${age(freeze.since, now)} ago by ${freeze.by} (${freeze.reason}) and starts no new run ${until}`,
    ...(waitersOf(waited) > 0 ? [waitText(waitersOf(waited))] : []),
  ].join('; ');
}

function explainSlots(facts: GroupFacts, { prefix, now, other }: ExplainOptions): Explanation {
  const { group, slots, queue, returning = [] } = facts;
  const open = slots.filter((slot) => isOpen(slot, now));
  const moving = slots.filter((slot) => isMoving(slot));
  const stuck = slots.filter((slot) => !open.includes(slot) && !moving.includes(slot));
  const next = open[0];
  const parts = [
    ...(next && queue.length > 0 ? [grantText(facts, next)] : []),
    ...summary(stuck, now, 'kept'),
    ...summary(moving, now, 'taken', other),
    ...(queue.length === 0 ? summary(pastHold(open), now, 'open') : []),
    ...returning.map(({ node, why: what }) => `${node} waits to run again: ${what}`),
    ...(!next && queue.length > 0 ? [waitText(queue.length)] : []),
  ];
  const why = parts.length > 0 ? parts.join('; ') : 'idle: nobody runs and nobody waits';
  const kept = stuck.find((slot) => slot.node !== undefined);
  const isBack = returning.some(({ node }) => node === kept?.node);
  if (kept && !isBack) return { why, ...whatToDo(kept, { prefix, group }) };
  if (kept)
    return { why, next: `wait: ${kept.node ?? '?'} is back, and its claim goes when its run succeeds` };
  const [waits] = moving.flatMap(waitsIn);
  const { next: then, fix } = (waits && other?.(waits.group)) ?? {};
  return { why, ...(then !== undefined && { next: then }), ...(fix !== undefined && { fix }) };
}

/** A command only where clearing the claim can't let two nodes change at once (docs/adr/0019). */
function whatToDo(
  slot: SlotView,
  { prefix, group }: { prefix: string; group: string },
): Omit<Explanation, 'why'> {
  const { node = '?', command = '?', state } = slot;
  // Of a run that has ended no session has the lock any more.
  if (slot.alive && state !== 'running' && state !== 'evicted') {
    const key = groupKeys(prefix, group).lock(slot.slot);
    return {
      next: `a session that is no run's holds ${key}, and meanwhile nobody can use or clear slot ${slot.slot}: find out who made it ('consul kv get -detailed ${key}'), and let go of the key with 'consul kv delete ${key}'`,
    };
  }
  switch (state) {
    case 'failed':
      return {
        next: `repair ${node} and run it again, or clear its claim`,
        fix: hint(prefix, 'release', group, '--owner', node),
      };
    case 'interrupted':
      return { next: `wait for ${node}'s next run, which takes the slot back, or start it on ${node}` };
    case 'rebooting':
      return { next: `wait for ${node}'s next run; if ${node} does not come back, look at it` };
    case 'held':
      return { next: `wait until ${node} gives the slot back, or ask whoever works on ${placeOf(slot)}` };
    case 'running':
    case 'evicted':
    case 'abandoned':
      return {
        next: `look at ${placeOf(slot)} first: ${command} may still run there; once it is gone, run ${node} again, or clear its claim with release, which asks first`,
      };
    case 'free':
    case 'locked':
    case 'unreadable':
      return {};
    default:
      return assertNever(state);
  }
}

/** Where it is at work: machines that share a node's name, or run for another, are told apart by their host names. */
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

function runningSentence(slot: SlotView, now: number, other: ExplainOptions['other']): string {
  const { node = '?', command = '?', since = '', also = [] } = slot;
  const name = `slot ${slot.slot}`;
  const [waits] = waitsIn(slot);
  if (waits) {
    const why = other?.(waits.group)?.why;
    const there = why === undefined ? '' : ` (${why})`;
    return `${node} has ${name} since ${age(since, now)} and runs nothing yet: it waits for a slot of ${waits.group}${there}`;
  }
  const others = also.map(({ group }) => group).join(', ');
  return `${node} runs ${command} since ${age(since, now)} in ${name}${others === '' ? '' : `, and in ${others}`}`;
}

/** The first slot in words, the others counted. */
function summary(
  slots: readonly SlotView[],
  now: number,
  word: 'kept' | 'taken' | 'open',
  other?: ExplainOptions['other'],
): string[] {
  const [first, ...more] = slots;
  if (!first) return [];
  const others =
    more.length === 0 ? '' : `, and ${more.length} more ${more.length === 1 ? 'is' : 'are'} ${word} too`;
  return [slotSentence(first, now, other) + others];
}

function slotSentence(slot: SlotView, now: number, other: ExplainOptions['other']): string {
  const { node = '?', command = '?', since = '' } = slot;
  const name = `slot ${slot.slot}`;
  const ended = endedText(slot);
  switch (slot.state) {
    case 'free':
      return `${name} is free`;
    case 'running':
      if (!slot.alive) return goneSentence(slot, now);
      return runningSentence(slot, now, other);
    case 'failed':
      return `${node} failed (${ended}) ${age(since, now)} ago${leftText(slot)} ${keeps(slot, now, 'its next run succeeds')}`;
    case 'interrupted':
      return `${node} was interrupted by a signal (${ended}) ${age(since, now)} ago${leftText(slot)} ${keeps(slot, now, 'its next run succeeds')}`;
    case 'rebooting':
      return `${node} reboots (${ended}) since ${age(since, now)} ${keeps(slot, now, 'its next run succeeds')}`;
    case 'held':
      return `${node} took ${name} with 'runlock acquire' ${age(since, now)} ago ${keeps(slot, now, 'it gives it back')}`;
    case 'abandoned':
      return `${node} vanished while it ran ${command} (since ${age(since, now)}) ${keeps(slot, now, 'its next run succeeds')}`;
    case 'evicted':
      if (!slot.alive) return goneSentence(slot, now);
      return `${slot.by ?? 'an operator'} evicted ${node}, and ${name} comes free when ${command} has ended there`;
    case 'locked':
      return `${name} is locked by a run whose claim is gone: it claims the slot again or stops`;
    case 'unreadable':
      return `${name} has a claim that cannot be read and keeps everyone out (see problems)`;
    default:
      return assertNever(slot.state);
  }
}

/** Nobody sends the node work meanwhile, and its next run must name the same to end that. */
const leftText = ({ maintenance }: SlotView) =>
  maintenance ? `, left ${leftOnText(maintenance)} in maintenance` : '';

function keeps(slot: SlotView, now: number, release: string): string {
  const name = `slot ${slot.slot}`;
  if (slot.heldUntil === undefined) return `and keeps ${name} until ${release} or someone clears it`;
  if (isOpen(slot, now)) return `and no longer keeps ${name}: its hold is over`;
  return `and keeps ${name} ${momentText(slot.heldUntil, now)}, unless ${release} or someone clears it before`;
}

/** A claim of a live run whose session is gone. */
function goneSentence(
  { slot, node = '?', command = '?', hold, missingSince }: SlotView,
  now: number,
): string {
  const after = hold === 'none' ? 'the next in the queue takes it over' : 'it counts as abandoned';
  const when =
    missingSince === undefined
      ? '60s after a run that wants the slot has first seen this,'
      : `a run that wants the slot saw this first ${age(missingSince, now)} ago, and 60s after that`;
  return (
    `${node} has vanished or is cut off from Consul and ${command} may still run there, so look at the node first: ` +
    `its next run takes slot ${slot} back; ${when} ${after}`
  );
}

function grantText({ queue }: GroupFacts, slot: SlotView): string {
  const [first] = queue;
  const who = first?.place === 1 ? first.node : 'the first in the queue';
  const behind = queue.length === 1 ? '' : ` (${queue.length} wait)`;
  return `${who} is about to be granted slot ${slot.slot}${behind}`;
}

function waitText(count: number): string {
  return count === 1 ? '1 run waits' : `${count.toLocaleString('en-US')} runs wait`;
}

function age(since: string, now: number): string {
  return formatAge(now - Date.parse(since));
}
