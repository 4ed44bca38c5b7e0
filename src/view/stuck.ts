/**
 * What can never come true of itself, and which circles that is because of (docs/adr/0035-circles.md). Pure. Each
 * function takes time in proportion to the graph.
 */

/**
 * Something that may come true: `all` once all of its parts have, `any` once one of them has. One without parts may
 * come true at any moment, as far as is known.
 */
export interface Node {
  readonly kind: 'all' | 'any';
  /** Indexes of nodes. */
  readonly parts: readonly number[];
}

/** For each node, whether it waits, directly or not, for nothing but what waits for it, or for such nodes. */
export function findStuck(nodes: readonly Node[]): readonly boolean[] {
  const users: number[][] = nodes.map(() => []);
  for (const [i, { parts }] of nodes.entries()) for (const part of parts) users[part]?.push(i);
  const stuck = nodes.map(() => true);
  const open = nodes.map(({ parts }) => parts.length);
  const free: number[] = [];
  const release = (i: number) => {
    if (stuck[i] !== true) return;
    stuck[i] = false;
    free.push(i);
  };
  for (const [i, { parts }] of nodes.entries()) if (parts.length === 0) release(i);
  for (let next = free.pop(); next !== undefined; next = free.pop()) {
    for (const user of users[next] ?? []) {
      const left = (open[user] ?? 0) - 1;
      open[user] = left;
      if (nodes[user]?.kind === 'any' || left === 0) release(user);
    }
  }
  return stuck;
}

/**
 * The circles among stuck nodes: the nodes of each strongly connected component of more than one node, or of one that
 * is a part of itself (Tarjan).
 */
export function findCircles(
  nodes: readonly Node[],
  stuck: readonly boolean[],
): readonly (readonly number[])[] {
  const partsOf = (i: number) => (nodes[i]?.parts ?? []).filter((part) => stuck[part]);
  const order = new Map<number, number>();
  const low = new Map<number, number>();
  const open: number[] = [];
  const isOpen = new Set<number>();
  const circles: number[][] = [];
  for (const start of nodes.keys()) {
    if (stuck[start] !== true || order.has(start)) continue;
    // A stack of its own: a chain may be longer than the language's.
    const path = [{ at: start, parts: partsOf(start), next: 0 }];
    enter(start);
    for (let step = path.at(-1); step; step = path.at(-1)) {
      const { at } = step;
      const part = step.parts[step.next];
      step.next += 1;
      if (part === undefined) {
        path.pop();
        leave(at, path.at(-1)?.at);
      } else if (!order.has(part)) {
        enter(part);
        path.push({ at: part, parts: partsOf(part), next: 0 });
      } else if (isOpen.has(part)) lower(at, order.get(part));
    }
  }
  return circles;

  function enter(i: number): void {
    const number = order.size;
    order.set(i, number);
    low.set(i, number);
    open.push(i);
    isOpen.add(i);
  }

  function lower(i: number, to: number | undefined): void {
    low.set(i, Math.min(low.get(i) ?? Infinity, to ?? Infinity));
  }

  function leave(i: number, user: number | undefined): void {
    if (user !== undefined) lower(user, low.get(i));
    if (low.get(i) !== order.get(i)) return;
    const from = open.lastIndexOf(i);
    const circle = open.splice(from);
    for (const each of circle) isOpen.delete(each);
    if (circle.length > 1 || partsOf(i).includes(i)) circles.push(circle);
  }
}

/** The shortest way from `start` back to itself inside `circle`: the nodes on it, `start` first and once. */
export function wayAround(
  nodes: readonly Node[],
  circle: readonly number[],
  start: number,
): readonly number[] {
  const inside = new Set(circle);
  const from = new Map<number, number>();
  const next = [start];
  for (const at of next) {
    for (const part of nodes[at]?.parts ?? []) {
      if (part === start) return wayTo(at);
      if (!inside.has(part) || from.has(part)) continue;
      from.set(part, at);
      next.push(part);
    }
  }
  return [start];

  function wayTo(end: number): number[] {
    const way = [end];
    for (let at = from.get(end); at !== undefined; at = from.get(at)) way.push(at);
    return way.reverse();
  }
}
