/**
 * What whoever looks at a job does for it, because nobody else may be left to do it: stops it past its end, and ends
 * targets whose run is provably gone, or whose agent is not there. Also removes jobs that are over.
 */
import type { Consul, Entry } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import { groupKeys } from '../lock/keys.ts';
import { VANISHED_AFTER_MS } from '../lock/decide.ts';
import type { RunStep } from '../lock/transactions.ts';
import type { Deps } from '../platform/deps.ts';
import { contend } from './contend.ts';
import type { Contender, Plan } from './contend.ts';
import { MOST_TARGETS } from './documents.ts';
import { endTarget, stopJob } from './end.ts';
import { NOT_BOOTED, goneRuns, watchRuns } from './gone.ts';
import type { Watched } from './gone.ts';
import { agentKey, jobGroup } from './keys.ts';
import { jobWriteRule } from './read.ts';
import { isExpired, isUnderWay } from './stage.ts';
import { collect, dropPointers } from './transactions.ts';
import { viewJob } from './view.ts';
import type { JobView, TargetView } from './view.ts';

export interface Tender extends Omit<Contender, 'rule' | 'deps'> {
  readonly consul: Consul;
  readonly deps: Pick<Deps, 'clock' | 'random'>;
  readonly prefix: string;
}

/** What was seen so far, and since when, on a clock that only moves forward, in milliseconds. */
export interface Sights {
  readonly runs: Watched;
  /** Nodes whose agent is not there. */
  readonly away: ReadonlyMap<string, number>;
}

export const noSights: Sights = { runs: new Map(), away: new Map() };

/** What was done to the job; it is then to be read again. */
export type Deed =
  { readonly kind: 'expired' } | { readonly kind: 'lost' | 'offline'; readonly node: string };

export interface Tended {
  readonly sights: Sights;
  readonly deeds: readonly Deed[];
}

/**
 * Looks once more at what the view does not show, and does what has been due for long enough. To be called again, with
 * what it returns, for as long as somebody looks. What the token may not read or write is left alone.
 * @throws RunlockError: Consul does not answer.
 */
export async function tendJob(tender: Tender, view: JobView, before: Sights = noSights): Promise<Tended> {
  if (view.isOver) return { sights: noSights, deeds: [] };
  try {
    return await tend(tender, view, before);
  } catch (error) {
    if (isRunlockError(error, 'forbidden')) return { sights: before, deeds: [] };
    throw error;
  }
}

async function tend(tender: Tender, view: JobView, before: Sights): Promise<Tended> {
  const { prefix, deps } = tender;
  const { ref, job } = view;
  const { home, until } = job.spec.value;
  const deeds: Deed[] = [];
  const isOpen = job.stage.value.kind === 'open' || job.stage.value.kind === 'fill';
  if (isOpen && isExpired(until, deps.clock.earliest())) {
    const result = await stopJob({ ...tender, ref, home }, { why: 'expired' });
    if (result.kind === 'stopped') deeds.push({ kind: 'expired' });
  }
  const nowMs = deps.clock.monotonicMs();
  const sights = {
    runs: await seeRuns(tender, view, { before: before.runs, nowMs }),
    away: await seeAway(tender, view, { before: before.away, nowMs }),
  };
  const at = () => new Date(deps.clock.now()).toISOString();
  const end = async (node: string, request: Parameters<typeof endTarget>[1], kind: 'lost' | 'offline') => {
    const result = await endTarget({ ...tender, prefix, ref, node, known: known(view, node) }, request);
    if (result.kind === 'ended') deeds.push({ kind, node });
  };
  for (const [node, { run, evidence }] of goneRuns(sights.runs, nowMs))
    await end(
      node,
      {
        owners: [evidence],
        end: ({ document }) => {
          if (!document || !isUnderWay(document.value) || document.value.run !== run) return undefined;
          const why = document.value.state === 'rebooting' ? NOT_BOOTED : UNRECORDED;
          return { state: 'lost', endedAt: at(), why };
        },
      },
      'lost',
    );
  for (const [node, sinceMs] of sights.away) {
    if (nowMs - sinceMs < VANISHED_AFTER_MS) continue;
    await end(
      node,
      {
        end: ({ document }) =>
          !document || ['accepted', 'waiting'].includes(document.value.state)
            ? { state: 'offline', endedAt: at(), why: 'its agent was not there' }
            : undefined,
      },
      'offline',
    );
  }
  return { sights, deeds };
}

const UNRECORDED = 'its run is gone, and its end was not recorded';

/** Lists of targets are in the order of the view. */
const known = ({ job, targets }: JobView, node: string) => ({
  home: job.spec.value.home,
  chunk: Math.floor(targets.findIndex((each) => each.node === node) / MOST_TARGETS),
});

interface Past<T> {
  readonly before: T;
  readonly nowMs: number;
}

async function seeRuns(
  { consul, prefix, signal }: Tender,
  { ref, job, targets }: JobView,
  { before, nowMs }: Past<Watched>,
): Promise<Watched> {
  const underWay = targets.filter(({ document }) => document && isUnderWay(document));
  if (underWay.length === 0) return new Map();
  const { home, noop } = job.spec.value;
  const keys = groupKeys(prefix, noop ? jobGroup(home, ref) : home);
  const marks = keys.node('');
  await proveRead(consul, [keys.slotPrefix, marks], signal);
  const entries = await consul.readAll(
    [keys.slotPrefix, marks].map((key) => ({ verb: 'get-tree', key })),
    { signal },
  );
  const last: Entry[] = [];
  for (const { node, document } of underWay) {
    if (document?.state !== 'rebooting') continue;
    const { entry } = await consul.get(keys.run(node), { signal, rule: keys.rule });
    if (entry) last.push(entry);
  }
  return watchRuns(before, { targets: underWay, keys, entries: [...entries, ...last] }, nowMs);
}

/** Targets that could begin, where the job does not wait for those that are offline. */
async function seeAway(
  { consul, prefix, signal }: Tender,
  { job, targets }: JobView,
  { before, nowMs }: Past<ReadonlyMap<string, number>>,
): Promise<ReadonlyMap<string, number>> {
  const { stage, spec } = job;
  const open = stage.value.kind === 'open' ? stage.value.stage : -1;
  if (spec.value.offline === 'wait' || open === -1) return new Map();
  const isOpen = ({ state, stage: of }: TargetView) =>
    of >= 0 && of <= open && ['queued', 'accepted', 'waiting'].includes(state);
  const waiting = targets.filter(isOpen);
  if (waiting.length === 0) return new Map();
  const folder = agentKey(prefix, '');
  await proveRead(consul, [folder], signal);
  const there = new Set(await consul.keys(folder, { signal }));
  return new Map(
    waiting
      .filter(({ node }) => !there.has(agentKey(prefix, node)))
      .map(({ node }) => [node, before.get(node) ?? nowMs]),
  );
}

/** Lists leave out what may not be read; a read of one key says so. @throws RunlockError `forbidden` */
async function proveRead(consul: Consul, folders: readonly string[], signal: AbortSignal): Promise<void> {
  for (const folder of folders)
    await consul.get(`${folder}.may-read`, { signal, rule: `key_prefix "${folder}" { policy = "read" }` });
}

/** `kept`: it is not over, or not there. */
export type Collected = 'removed' | 'kept';

/** Removes a job that is over, with all that is left of it. @throws RunlockError as `viewJob`. */
export async function collectJob(tender: Tender, ref: JobView['ref']): Promise<Collected> {
  const { prefix, consul, signal } = tender;
  const first = await viewJob({ consul, prefix, ref }, { signal });
  if (!first) return 'kept';
  const rule = `${jobWriteRule(prefix, first.job.spec.value.home, ref.principal)}, ${first.job.requests.rule}`;
  const nodes = first.targets.map(({ node }) => node);
  const lists = Array.from({ length: Math.ceil(nodes.length / MOST_TARGETS) }, (_, i) =>
    nodes.slice(i * MOST_TARGETS, (i + 1) * MOST_TARGETS),
  );
  const send = (stepsOf: (view: JobView) => readonly RunStep[], gone: Collected) =>
    contend<Collected>({ ...tender, rule }, async (): Promise<Plan<Collected>> => {
      const view = await viewJob({ consul, prefix, ref }, { signal });
      if (!view) return { kind: 'over', value: gone };
      if (!view.isOver) return { kind: 'over', value: 'kept' };
      return { kind: 'send', steps: stepsOf(view), value: 'removed', others: 1 };
    });
  // Sent again after a lost answer, each does the same.
  for (const list of lists)
    if ((await send(({ job }) => dropPointers(job, list), 'kept')) === 'kept') return 'kept';
  return send(({ job }) => collect(job), 'removed');
}
