/**
 * For what each waiting run waits, and which of the waiting runs could bring it about (docs/adr/0035-circles.md). Pure.
 */
import { EVERY_NODE } from '../conditions/parse.ts';
import type { Condition } from '../conditions/parse.ts';
import { assertNever, isRunlockError } from '../errors.ts';
import { groupKeys } from '../lock/keys.ts';
import { decodeRun } from '../lock/records.ts';
import { decodeState } from '../state/document.ts';
import { stateKey } from '../state/path.ts';
import { isName } from '../text/words.ts';
import type { GroupFacts } from './explain.ts';
import type { SlotView } from './report.ts';
import type { Node } from './stuck.ts';
import { isKept } from './state.ts';
import { conditionParser, lookup, remember } from './waits.ts';
import type { WaitFacts } from './waits.ts';

/** A run that waits, wherever. */
export interface Waiter {
  readonly node: string;
  readonly run: string;
  readonly groups: readonly string[];
}

/** What a node of the graph stands for. */
export type Meaning =
  | ({ readonly kind: 'run' } & Waiter)
  /** Something that a run waits for, as its condition has it, or a slot of a group. */
  | { readonly kind: 'condition'; readonly condition: Condition }
  | { readonly kind: 'slots' | 'behind'; readonly group: string }
  | { readonly kind: 'slot'; readonly group: string; readonly slot: number }
  /** A run of a node that waits in a group. */
  | { readonly kind: 'runs' }
  /** Somebody sets a state. */
  | { readonly kind: 'state'; readonly path: string };

export interface WaitGraph {
  readonly nodes: readonly (Node & { readonly means: Meaning })[];
  /** The indexes of the runs, in the order of their groups. */
  readonly runs: readonly number[];
}

export interface GraphOptions {
  readonly prefix: string;
  /** Wall-clock milliseconds. */
  readonly now: number;
  readonly facts: WaitFacts;
}

/** @param groups every group that was read. */
export function waitGraph(groups: readonly GroupFacts[], { prefix, now, facts }: GraphOptions): WaitGraph {
  const nodes: { readonly kind: Node['kind']; readonly parts: number[]; readonly means: Meaning }[] = [];
  const add = (kind: Node['kind'], means: Meaning, parts: readonly number[]): number =>
    nodes.push({ kind, means, parts: [...parts] }) - 1;
  /** May happen at any moment, by somebody who does not wait, or whom nobody knows. */
  const OPEN = add('any', { kind: 'runs' }, []);
  const byName = new Map(groups.map((facts) => [facts.group, facts]));
  const find = lookup(facts.entries);
  const parse = conditionParser();
  const runs = new Map<string, number>();
  const publishers = new Map<string, Set<number>>();
  /** By node and group, and by group: who waits there, or runs. */
  const members = new Map<string, Set<number>>();
  const busy = new Set<string>();

  for (const { group, outside = [], queue, returning = [] } of groups) {
    for (const { node, run, groups: all, publish, during } of outside)
      enlist({ node, run, groups: all }, { group, paths: [...publish, ...during] });
    for (const { node, run, groups: all = [group], publish = [] } of queue)
      enlist({ node, run, groups: all }, { group, paths: publish });
    for (const { node, run, publish = [] } of returning)
      enlist({ node, run, groups: [group] }, { group, paths: publish });
  }
  for (const { group, slots } of groups)
    for (const slot of slots.filter(isRunning)) {
      const waiting = runs.get(keyOf(slot));
      publish(waiting ?? OPEN, slot.publish);
      if (waiting !== undefined) continue;
      busy.add(slot.node ?? '');
      join(OPEN, slot.node ?? '', group);
    }

  const membersNode = remember((name) => add('any', { kind: 'runs' }, [...(members.get(name) ?? [])]));
  const stateNode = remember((path) =>
    add('any', { kind: 'state', path }, [
      ...(publishers.get(path) ?? []),
      ...(facts.isPartial ? [OPEN] : []),
    ]),
  );
  const slotNode = remember((name) => {
    const [group = '', number = ''] = name.split(' ');
    const slot = slotsOf(group).find((each) => String(each.slot) === number);
    const parts = [slot ? releaserOf(group, slot) : OPEN];
    return add('any', { kind: 'slot', group, slot: Number(number) }, parts);
  });
  /** One slot of the group is released. */
  const anySlotNode = remember((group) =>
    add('any', { kind: 'slots', group }, slotsOf(group).map(toNode(group))),
  );
  /** All of them are. */
  const allSlotsNode = remember((group) =>
    add('all', { kind: 'slots', group }, slotsOf(group).filter(isTaken).map(toNode(group))),
  );
  const goodNode = remember((name) => {
    const [node = '', group = ''] = name.split(' ');
    return add(
      'all',
      { kind: 'runs' },
      badNodes(group, node).map((bad) => membersNode(`${bad} ${group}`)),
    );
  });

  for (const { group, outside = [], queue } of groups) {
    for (const { node, run, groups: own, when } of outside)
      for (const { condition: text, holds } of when) {
        const condition = holds === false ? parse(text) : undefined;
        if (!condition) continue;
        const parts = partsOf(condition, own);
        if (parts) link({ node, run }, add(parts.kind, { kind: 'condition', condition }, parts.parts));
      }
    for (const [i, waiter] of queue.entries()) {
      const ahead = queue[i - 1];
      if (!ahead) link(waiter, anySlotNode(group));
      else link(waiter, add('any', { kind: 'behind', group }, [runs.get(keyOf(ahead)) ?? OPEN]));
    }
  }
  return { nodes, runs: [...runs.values()] };

  function enlist(waiter: Waiter, { group, paths }: { group: string; paths: readonly string[] }): void {
    const known = runs.get(keyOf(waiter));
    const self = known ?? add('all', { kind: 'run', ...waiter }, []);
    runs.set(keyOf(waiter), self);
    for (const each of known === undefined ? [group, ...waiter.groups] : [group])
      join(self, waiter.node, each);
    publish(self, paths);
  }

  function publish(self: number, paths: readonly string[] = []): void {
    for (const path of paths) publishers.set(path, (publishers.get(path) ?? new Set()).add(self));
  }

  function join(self: number, node: string, group: string): void {
    for (const name of [`${node} ${group}`, `${EVERY_NODE} ${group}`]) {
      const all = members.get(name) ?? new Set();
      members.set(name, all.add(self));
    }
  }

  function link(waiter: Pick<Waiter, 'node' | 'run'>, part: number): void {
    const self = runs.get(keyOf(waiter));
    if (self !== undefined) nodes[self]?.parts.push(part);
  }

  function slotsOf(group: string): readonly SlotView[] {
    return byName.get(group)?.slots ?? [];
  }

  function toNode(group: string) {
    return ({ slot }: SlotView) => slotNode(`${group} ${slot}`);
  }

  /** Who ends what keeps the slot. */
  function releaserOf(group: string, slot: SlotView): number {
    const { state, alive, node = '', heldUntil, hold } = slot;
    if (isRunning(slot)) return runs.get(keyOf(slot)) ?? OPEN;
    const isGone = (state === 'running' || state === 'evicted') && !alive;
    const endsItself = heldUntil !== undefined || (isGone && hold !== 'forever');
    const isOwners = (isKept(slot, now) && state !== 'unreadable') || state === 'rebooting';
    return isOwners && !endsItself ? membersNode(`${node} ${group}`) : OPEN;
  }

  /** Of these nodes the last run in the group is not good. */
  function badNodes(group: string, node: string): readonly string[] {
    const start = groupKeys(prefix, group).run('');
    const entries =
      node === EVERY_NODE
        ? find.below(start)
        : [find.get(start + node)].filter((entry) => entry !== undefined);
    const records = entries
      .filter(({ key }) => isName(key.slice(start.length)))
      .map((entry) => readable(() => decodeRun(entry)));
    if (records.length === 0) return node === EVERY_NODE ? [] : [node];
    return records.flatMap((record) => (record && record.outcome !== 'succeeded' ? [record.node] : []));
  }

  /** What would make a false condition true; undefined: nobody knows who could. */
  function partsOf(condition: Condition, own: readonly string[]): Pick<Node, 'kind' | 'parts'> | undefined {
    const { not } = condition;
    switch (condition.kind) {
      case 'state':
        return statePartsOf(condition);
      case 'idle':
        return one(not ? membersNode(`${EVERY_NODE} ${condition.group}`) : allSlotsNode(condition.group));
      case 'blocked':
        return not ? one(allSlotsNode(condition.group)) : undefined;
      case 'active': {
        const where = condition.group === undefined ? own : [condition.group];
        if (!not)
          return { kind: 'any', parts: where.map((group) => membersNode(`${condition.node} ${group}`)) };
        const isIts = ({ node, state }: SlotView) => node === condition.node && state === 'running';
        return {
          kind: 'all',
          parts: where.flatMap((group) => slotsOf(group).filter(isIts).map(toNode(group))),
        };
      }
      case 'good': {
        const where = condition.group === undefined ? own : [condition.group];
        return not
          ? undefined
          : { kind: 'all', parts: where.map((group) => goodNode(`${condition.node} ${group}`)) };
      }
      case 'healthy':
      case 'frozen':
      case 'agent':
        return undefined;
      default:
        return assertNever(condition);
    }
  }

  function statePartsOf({ path, is, not }: Extract<Condition, { kind: 'state' }>) {
    const entry = find.get(stateKey(prefix, path));
    const document = entry && readable(() => decodeState(entry));
    // The node that set it last has a run under way, which may set it again.
    if (document?.run !== undefined && busy.has(document.by)) return undefined;
    const setters = stateNode(path);
    // Somebody has to set it.
    if (not === (is === 'other')) return one(setters);
    if (!document || document.until !== undefined) return undefined;
    const claim = document.while && slotNode(`${document.while.group} ${document.while.slot}`);
    // It has to go.
    if (is === undefined) return claim === undefined ? undefined : one(claim);
    return { kind: 'any', parts: [setters, ...(claim === undefined ? [] : [claim])] } as const;
  }
}

/** Whether runs that wait for it can be waiting for each other: for the others nobody knows who could bring them about. */
export function isOfRuns({ kind, not }: Condition): boolean {
  switch (kind) {
    case 'state':
    case 'idle':
    case 'active':
      return true;
    case 'blocked':
      return not;
    case 'good':
      return !not;
    case 'healthy':
    case 'frozen':
    case 'agent':
      return false;
    default:
      return assertNever(kind);
  }
}

const one = (part: number) => ({ kind: 'any', parts: [part] }) as const;

const keyOf = ({ node = '', run = '' }: { readonly node?: string; readonly run?: string }) =>
  `${node} ${run}`;

const isRunning = ({ state, alive }: SlotView) => state === 'running' && alive;

const isTaken = ({ state }: SlotView) => state !== 'free';

/** Undefined: what is stored can't be read. */
function readable<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    return undefined;
  }
}
