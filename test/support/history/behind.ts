// One run, and others behind it in the queue: the scene of most faults.
import { expect } from 'vitest';
import { livingOf } from './steps.ts';
import type { Fleet, Node, NodeOptions } from './fleet.ts';
import type { RunTrace } from './history.ts';

/** As they are served: the run of a scene, then those that wait behind it. */
export const IN_ORDER = ['web01', 'web02', 'web03'];

export interface Scene {
  readonly run: Node;
  /** As it was when it had started. */
  readonly trace: RunTrace;
  /** In the order of their tickets. */
  readonly behind: readonly Node[];
}

export interface SceneOptions {
  /** For the run. */
  readonly run?: NodeOptions;
  /** For each of those behind it; a command of a few beats unless it says otherwise. */
  readonly behind?: NodeOptions;
}

/** `web01` runs until it is told to end; `web02` and `web03` wait for it, in this order. */
export async function startScene(fleet: Fleet, options: SceneOptions = {}): Promise<Scene> {
  const run = fleet.start('web01', options.run);
  const trace = await run.running(20_000);
  const behind: Node[] = [];
  for (const name of ['web02', 'web03']) {
    const node = fleet.start(name, { part: { beats: 3 }, ...options.behind });
    await node.waiting(20_000);
    behind.push(node);
  }
  return { run, trace, behind };
}

/** Everyone behind the run is served and ends well; who had a slot, in the order of the grants. */
export async function servedBehind(fleet: Fleet, { behind }: Scene): Promise<string[]> {
  for (const node of behind) {
    const { status, stderr } = await node.ended;
    expect(status, `${node.name}: ${stderr}`).toBe(0);
  }
  return grants(fleet);
}

/** Who has had a slot so far, in the order of the grants. */
export async function grants(fleet: Fleet): Promise<string[]> {
  return (await fleet.history()).runs.map(({ node }) => node);
}

/** Those of the run's processes that live. */
export const survivors = ({ trace }: Scene): number[] => livingOf(trace);

/** How long the next run started after the last sign of life of the run before it, in milliseconds. */
export async function gapMs(fleet: Fleet, before: string, after: string): Promise<number> {
  const { runs } = await fleet.history();
  const of = (name: string) => runs.find(({ node }) => node === name)?.processes ?? [];
  const lastMs = Math.max(...of(before).map((process) => process.lastMs));
  return Math.min(...of(after).map((process) => process.startMs)) - lastMs;
}
