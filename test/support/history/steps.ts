// Steps that tests of faults share.
import { expect } from 'vitest';
import { startTime } from '../../../src/process/process-tree.ts';
import { end, eventually, livesIn } from '../processes.ts';
import type { Fleet, Node, NodeOptions } from './fleet.ts';
import type { RunTrace } from './history.ts';

/** Longer than anything takes that is not a matter of TTLs and holds, also on a busy machine. */
export const SOON_MS = 45_000;
/** Longer than a session of 10 s lives without renewals, which is twice its TTL. */
export const SESSION_MS = 60_000;
/** Longer than a vanished run keeps others out: its session, 60 s of looking, 5 s of hold, 5 s for clocks that differ. */
export const VANISHED_MS = 150_000;

/** For a test that waits for several of these. */
export const LONG = { timeout: 240_000 };
export const HOLDS = ['forever', '5s', 'none'] as const;
/** A run that ends by itself. */
export const brief = { part: { beats: 3 } };
/** All of it ignores TERM, and a part of it is in a session of its own. */
export const stubborn = { part: { deaf: true, grandchild: true } };
export const impatient = { args: ['-w', '0'] };

/** Starts runs that wait, one after the other: they are served in this order. */
export async function lineUp(
  fleet: Fleet,
  names: readonly string[],
  options: NodeOptions = {},
): Promise<Node[]> {
  const nodes: Node[] = [];
  for (const name of names) {
    const node = fleet.start(name, options);
    await node.waiting(SOON_MS);
    nodes.push(node);
  }
  return nodes;
}

/** Starts a run and waits until its command has started, with all who take part. */
export async function occupy(
  fleet: Fleet,
  name: string,
  options: NodeOptions = {},
): Promise<{ node: Node; run: RunTrace }> {
  const node = fleet.start(name, options);
  return { node, run: await node.running(SOON_MS) };
}

/** The nodes whose commands were started, in the order of their grants. */
export async function served(fleet: Fleet): Promise<string[]> {
  return (await fleet.history()).runs.map(({ node }) => node);
}

/** The history breaks no promise, and shows commands of these nodes alone, granted in this order. */
export async function expectServed(fleet: Fleet, order: readonly string[]): Promise<void> {
  expect(await served(fleet)).toEqual(order);
  const { broken, judged } = await fleet.verdict();
  expect(broken).toEqual([]);
  expect(judged.runs).toBe(order.length);
}

export const livingOf = ({ run, processes }: RunTrace): number[] =>
  processes.map(({ pid }) => pid).filter((pid) => livesIn(run, pid));

/** Resolves when nothing of the run's witnesses is alive. */
export async function untilDead(run: RunTrace, timeoutMs: number): Promise<void> {
  await eventually(() => expect(livingOf(run)).toEqual([]), timeoutMs);
}

/** Resolves when no session holds the slot's lock any more. */
export async function untilUnlocked(fleet: Fleet, slot = 0): Promise<void> {
  await eventually(async () => expect(await fleet.keys()).not.toContain(`.slot/${slot}/lock`), SESSION_MS);
}

/** A command of this run beats on after `sinceMs`, in milliseconds since boot. */
export async function untilBeat(fleet: Fleet, { run }: RunTrace, sinceMs: number): Promise<void> {
  await eventually(async () => {
    const trace = (await fleet.history()).runs.find((one) => one.run === run);
    expect(Math.min(...(trace?.processes ?? []).map(({ lastMs }) => lastMs))).toBeGreaterThan(sinceMs);
  }, SESSION_MS);
}

/** Stops a process that the fleet knows nothing of, such as a guard, or its whole group; it dies with the test if it is still there. */
export function halt(
  pid: number,
  how: 'alone' | 'group' = 'alone',
): Disposable & { readonly pid: number; resume(): void } {
  const born = startTime(pid);
  const target = how === 'group' ? -pid : pid;
  process.kill(target, 'SIGSTOP');
  return {
    pid,
    resume: () => void process.kill(target, 'SIGCONT'),
    [Symbol.dispose]: () => {
      if (startTime(pid) === born) end(target);
    },
  };
}
