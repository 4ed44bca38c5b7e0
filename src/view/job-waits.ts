/**
 * What the nodes of a job wait for in the queue: nobody writes that for the job, whose runs would do so again at each place. It
 * follows from the group's keys, as `status` shows it.
 */
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import { groupKeys } from '../lock/keys.ts';
import { viewGroups } from './groups.ts';
import type { JobReport, TargetReport } from './job.ts';
import type { GroupView } from './report.ts';
import { readWaits } from './read-waits.ts';
import { sourcesOfWaits, waitingRuns } from './waits.ts';

/** A run of the node that waits. */
export interface NodeWaitView {
  readonly group: string;
  readonly run: string;
  readonly since: string;
  readonly waitedMs: number;
  readonly command?: string;
  /** In the queue, from 1. Absent: it waits without a place, for its conditions, its gate, or its node's own claim. */
  readonly place?: number;
  /** What it waits for, in one sentence. */
  readonly why: string;
}

/** The runs of the group that wait, by node. */
export function waitsIn({
  group,
  queue,
  returning = [],
  outside = [],
  why,
}: GroupView): readonly { readonly node: string; readonly wait: NodeWaitView }[] {
  return [
    ...queue.map(({ node, run, since, waitedMs, command, place }) => ({
      node,
      wait: { group, run, since, waitedMs, command, place, why },
    })),
    ...returning.map(({ node, run, since, waitedMs, why: reason }) => ({
      node,
      wait: { group, run, since, waitedMs, why: reason },
    })),
    ...outside.map(({ node, run, since, waitedMs, command, why: reason }) => ({
      node,
      wait: { group, run, since, waitedMs, command, why: reason },
    })),
  ];
}

/** A run that has its turn at once is not shown as waiting. */
const SHORT_MS = 1_000;

const isBefore = ({ state }: { readonly state?: TargetReport['state'] | undefined }) =>
  state === 'accepted' || state === 'waiting';

/** Of a target that has not begun; undefined: its run does not wait, or not in this group. */
export function waitOf(
  { state, acceptedAt, why: before }: Partial<Pick<TargetReport, 'state' | 'acceptedAt' | 'why'>>,
  waits: readonly NodeWaitView[],
):
  | (Pick<TargetReport, 'place' | 'waitsIn'> & { readonly state: 'waiting'; readonly why: string })
  | undefined {
  if (!isBefore({ state }) || acceptedAt === undefined) return undefined;
  // A run that came before is another's. Both times are by the clock of the node.
  const wait = waits.find(
    ({ since, waitedMs }) => Date.parse(since) >= Date.parse(acceptedAt) && waitedMs >= SHORT_MS,
  );
  if (!wait) return undefined;
  const { place, group, why } = wait;
  const where = place === undefined ? `in ${group}` : `place ${place} in the queue of ${group}`;
  // Why the try before this one came to nothing still counts.
  const also = before === undefined ? '' : `; ${before}`;
  return {
    state: 'waiting',
    why: `${where}: ${why}${also}`,
    waitsIn: group,
    ...(place !== undefined && { place }),
  };
}

/** The report with its waiting targets named so. */
export function withWaits(report: JobReport, group: GroupView): JobReport {
  const byNode = new Map<string, NodeWaitView[]>();
  for (const { node, wait } of waitsIn(group)) byNode.set(node, [...(byNode.get(node) ?? []), wait]);
  const targets = report.targets.map((target) => ({
    ...target,
    ...waitOf(target, byNode.get(target.node) ?? []),
  }));
  const states: Record<string, number> = {};
  for (const { state } of targets) states[state] = (states[state] ?? 0) + 1;
  return { ...report, targets, states };
}

/**
 * Reads the queue of the job's group, if any of its nodes may wait there; without the right to read it, or while Consul does not
 * answer, the report stays as it is. Writes nothing. @throws what `signal` aborts with.
 */
export async function readJobWaits(
  consul: Consul,
  report: JobReport,
  { now, signal }: { readonly now: number; readonly signal: AbortSignal },
): Promise<JobReport> {
  const { prefix, home, stage = -1, targets } = report;
  const mayWait = targets.some((target) => isBefore(target) && target.stage <= stage);
  if (!mayWait) return report;
  const limits = { signal, ...FIRST_CONTACT, retryForMs: 0 };
  const keys = groupKeys(prefix, home);
  const trees = [keys.queuePrefix, keys.slotPrefix, keys.outside(''), ...keys.freezes];
  try {
    const entries = await consul.readAll(
      trees.map((key) => ({ verb: 'get-tree', key })),
      limits,
    );
    const sources = sourcesOfWaits(prefix, waitingRuns(prefix, entries));
    const waits =
      sources.length === 0
        ? undefined
        : await readWaits(consul, { prefix, sources, everything: undefined }, limits);
    const found = { entries, ...(waits && { waits }) };
    const group = viewGroups(found, { prefix, groups: [home], now }).groups.find(
      (each) => each.group === home,
    );
    return group ? withWaits(report, group) : report;
  } catch (error) {
    signal.throwIfAborted();
    if (isRunlockError(error)) return report;
    throw error;
  }
}
