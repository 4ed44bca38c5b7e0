/** A whole job as it stands: its targets, with what became of each, and where it is. */
import type { Consul, Entry, RetryOptions } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import type { Spec, Stage, TargetDocument } from './documents.ts';
import type { JobRef } from './keys.ts';
import { checkTally, jobIn, jobReadRule, placeOf, requestRule, seenIn } from './read.ts';
import { decodeSpec, decodeTail, decodeTarget, decodeTargets } from './records.ts';
import { failuresOf, isOver, isUnderWay, shownState } from './stage.ts';
import type { ShownState } from './stage.ts';
import type { SeenJob } from './transactions.ts';

/** What became of one target. */
export interface TargetView {
  readonly node: string;
  /** -1: it was offline at the start. */
  readonly stage: number;
  readonly state: ShownState;
  readonly document?: TargetDocument;
  /** Of its document; to change it as it was read. */
  readonly index: number;
  /** The last line of its output, while it is running and somebody looks. */
  readonly line?: string;
  /** Of an unreadable one: its key, and how to remove that. */
  readonly fault?: string;
}

export interface JobView {
  readonly ref: JobRef;
  readonly job: SeenJob;
  /** In the order of the request. Of a job that is still being written: those that are. */
  readonly targets: readonly TargetView[];
  /** How many there are of each state; together they are all targets. */
  readonly counts: Readonly<Partial<Record<ShownState, number>>>;
  /** How many count against the limit of failures. */
  readonly failures: number;
  /** Nothing happens any more. */
  readonly isOver: boolean;
  /** All lists of targets are written. */
  readonly isComplete: boolean;
}

/**
 * Reads a job, all of it at one moment. Undefined: there is no such request.
 * @throws RunlockError `forbidden`, naming the rule; `incompatible`: a document can't be read, targets aside.
 */
export async function viewJob(
  { consul, prefix, ref }: { readonly consul: Consul; readonly prefix: string; readonly ref: JobRef },
  options: RetryOptions,
): Promise<JobView | undefined> {
  const [requests, rule] = [placeOf(prefix, '', ref).requests, requestRule(prefix)];
  const specKey = requests.spec(ref.id);
  // The home group is known from the request only; it changes with the request itself.
  for (;;) {
    const { entry } = await consul.get(specKey, { ...options, rule });
    if (!entry) return undefined;
    const { home } = decodeSpec(entry);
    const place = placeOf(prefix, home, ref);
    const { stage, tally, nodesPrefix, tailPrefix } = place.keys;
    const trees = [specKey, requests.targetsPrefix(ref.id), stage, tally, nodesPrefix, tailPrefix];
    const entries = await consul.readAll(
      trees.map((key) => ({ verb: 'get-tree', key })),
      options,
    );
    const found = new Map(entries.map((each) => [each.key, each]));
    // A transaction leaves out what the token may not read: a read of the key alone is refused.
    for (const key of [stage, tally])
      if (!found.has(key)) await consul.get(key, { ...options, rule: jobReadRule(prefix, home) });
    const spec = seenIn(found, specKey, decodeSpec);
    if (spec?.value.home !== home) continue;
    const job = jobIn(found, { ...place, spec }, ref);
    checkTally(job);
    return toView(ref, job, found);
  }
}

function toView(ref: JobRef, job: SeenJob, found: ReadonlyMap<string, Entry>): JobView {
  const { spec, stage } = job;
  const lists = Array.from({ length: spec.value.filled }, (_, i) => job.requests.targets(ref.id, i));
  const named = lists.flatMap((key) => {
    const list = found.get(key);
    return list ? decodeTargets(list).targets : [];
  });
  const targets = named.map(([node, of]) =>
    toTarget(found.get(job.keys.node(node)), {
      node,
      of,
      stage: stage.value,
      tail: found.get(job.keys.tail(node)),
    }),
  );
  const counts: Partial<Record<ShownState, number>> = {};
  for (const { state } of targets) counts[state] = (counts[state] ?? 0) + 1;
  const underWay = targets.filter(({ document }) => document && isUnderWay(document)).length;
  return {
    ref,
    job,
    targets,
    counts,
    isOver: isOver(stage.value, underWay),
    failures: failuresOf(job.tally.value, spec.value),
    isComplete: isComplete(spec.value),
  };
}

export const isComplete = ({ filled, chunks }: Spec): boolean => filled === chunks;

interface Named {
  readonly node: string;
  readonly of: number;
  readonly stage: Stage;
  /** Its live output. */
  readonly tail: Entry | undefined;
}

function toTarget(entry: Entry | undefined, { node, of, stage, tail }: Named): TargetView {
  const common = { node, stage: of, index: entry?.modifyIndex ?? 0 };
  if (!entry) return { ...common, state: shownState(undefined, of, stage) };
  try {
    const document = decodeTarget(entry);
    const line = document.state === 'running' && tail ? lineIn(tail) : undefined;
    return {
      ...common,
      state: shownState(document, of, stage),
      document,
      ...(line !== undefined && { line }),
    };
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    return { ...common, state: 'unreadable', fault: error.message };
  }
}

/** Output that can't be read is no reason not to show the job. */
function lineIn(tail: Entry): string | undefined {
  try {
    return decodeTail(tail).line;
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    return undefined;
  }
}
