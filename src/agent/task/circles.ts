/** Tasks that start each other, found in what all agents say of theirs. Pure. */
import { parseCondition } from '../../conditions/parse.ts';
import type { Condition } from '../../conditions/parse.ts';
import { isRunlockError } from '../../errors.ts';
import type { AgentDocument, AgentTask } from '../../jobs/documents.ts';

/** Tasks that are the same on several nodes. */
interface Kind {
  readonly task: AgentTask;
  readonly on: readonly Condition[];
  readonly nodes: readonly string[];
}

/** One circle: each task starts the next, and the last one the first, by the condition that it changes. */
export type Circle = readonly { readonly task: string; readonly changes: string }[];

/** The shortest circle through each task that is in one, each circle once. */
export function circlesOf(agents: readonly Pick<AgentDocument, 'node' | 'tasks'>[]): readonly Circle[] {
  const kinds = kindsOf(agents);
  const starts = new Map(kinds.map((kind) => [kind, kinds.flatMap((other) => link(kind, other))]));
  const found = new Map<string, Circle>();
  for (const kind of kinds) {
    const way = shortest(kind, starts);
    const id = way
      ?.map(({ task }) => task)
      .sort()
      .join('\0');
    if (way && id !== undefined && !found.has(id)) found.set(id, way);
  }
  return [...found.values()];
}

function kindsOf(agents: readonly Pick<AgentDocument, 'node' | 'tasks'>[]): readonly Kind[] {
  const kinds = new Map<string, Kind & { readonly nodes: string[] }>();
  for (const { node, tasks } of agents)
    for (const task of tasks) {
      const { name, groups, publish, on } = task;
      const same = JSON.stringify([name, groups, publish, on]);
      const kind = kinds.get(same) ?? { task, on: on.flatMap(readable), nodes: [] };
      kind.nodes.push(node);
      kinds.set(same, kind);
    }
  return [...kinds.values()];
}

/** A newer agent may know conditions that this program does not. */
function readable(text: string): readonly Condition[] {
  try {
    return [parseCondition(text)];
  } catch (error) {
    if (isRunlockError(error, 'usage')) return [];
    throw error;
  }
}

interface Link {
  readonly to: Kind;
  readonly by: Condition;
}

/** By which condition a run of one starts the other. */
function link(from: Kind, to: Kind): readonly Link[] {
  const by = to.on.find((condition) => changes(from, condition));
  return by ? [{ to, by }] : [];
}

function changes({ task, nodes }: Kind, condition: Condition): boolean {
  switch (condition.kind) {
    case 'state':
      return task.publish.includes(condition.path);
    case 'idle':
    case 'blocked':
      return task.groups.includes(condition.group);
    case 'good':
    case 'active':
      return (
        condition.group !== undefined &&
        task.groups.includes(condition.group) &&
        (condition.node === '*' || nodes.includes(condition.node))
      );
    case 'healthy':
    case 'frozen':
    case 'agent':
      return false;
  }
}

/** Breadth first, from the kind back to it. */
function shortest(start: Kind, starts: ReadonlyMap<Kind, readonly Link[]>): Circle | undefined {
  const ways: { readonly at: Kind; readonly way: Circle }[] = [{ at: start, way: [] }];
  const seen = new Set<Kind>();
  for (const { at, way } of ways) {
    for (const { to, by } of starts.get(at) ?? []) {
      const longer = [...way, { task: labelOf(at), changes: by.text }];
      if (to === start) return longer;
      if (seen.has(to)) continue;
      seen.add(to);
      ways.push({ at: to, way: longer });
    }
  }
  return undefined;
}

function labelOf({ task, nodes: [first = '', ...others] }: Kind): string {
  const more = others.length === 0 ? '' : ` (and on ${others.length} more)`;
  return `${task.name}@${first}${more}`;
}

/** `a@web01 changes state:x, which starts b@db01, which changes …`. */
export const circleText = (circle: Circle): string =>
  [
    ...circle.map(({ task, changes: condition }) => `${task} changes ${condition}`),
    circle[0]?.task ?? '',
  ].join(', which starts ');
