/** `runlock job retry`: a new job for what is not good in one that is over, asked as that one was. */
import { FIRST_CONTACT } from '../../consul/consul.ts';
import { RunlockError } from '../../errors.ts';
import { FAILURES } from '../../jobs/documents.ts';
import type { Spec } from '../../jobs/documents.ts';
import { isJobId, jobText } from '../../jobs/keys.ts';
import type { JobRef } from '../../jobs/keys.ts';
import { amountOfText } from '../../jobs/plan.ts';
import type { ShownState } from '../../jobs/stage.ts';
import { viewJob } from '../../jobs/view.ts';
import type { JobView, TargetView } from '../../jobs/view.ts';
import { hint } from '../../text/suggested-command.ts';
import type { Platform } from '../platform.ts';
import type { ConsulWays } from '../with-consul.ts';
import { noJob } from './home.ts';
import type { JobOptions, RetryKind, RetryRequest } from './request.ts';
import { begin, newId } from './start.ts';

type RetryOptions = JobOptions & RetryRequest;

/** @throws RunlockError `config`: there is no such job; `refused`: it is not over, or was retried; as `begin`. */
export async function retry(ways: ConsulWays, options: RetryOptions, platform: Platform): Promise<number> {
  const { prefix, ref } = options;
  const read = (of: JobRef) =>
    viewJob({ consul: ways.consul, prefix, ref: of }, { ...FIRST_CONTACT, signal: ways.signal });
  const view = await read(ref);
  if (!view) throw noJob(options);
  if (!view.isOver)
    throw new RunlockError(
      'refused',
      `job ${jobText(ref)} is not over yet; '${hint(prefix, 'job', 'watch', jobText(ref))}' follows it, 'job cancel' stops it`,
    );
  const { principal } = ref;
  // Two who retry the same job at once start one job.
  const id = options.id ?? nextId(ref.id) ?? newId(platform);
  if (options.id === undefined && !options.dryRun && (await read({ principal, id })))
    throw new RunlockError(
      'refused',
      `job ${jobText(ref)} was retried already, as ${jobText({ principal, id })}; '${hint(prefix, 'job', 'retry', jobText({ principal, id }))}' retries that one, and --id names another retry`,
    );
  const nodes = view.targets.filter((target) => isMeant(target, options.kinds)).map(({ node }) => node);
  if (nodes.length === 0)
    throw new RunlockError(
      'config',
      options.kinds.length === 0
        ? `nothing to retry: all nodes of job ${jobText(ref)} are good`
        : `nothing to retry: no node of job ${jobText(ref)} is ${options.kinds.join(' or ')}`,
    );
  const stage = { key: view.job.keys.stage, index: view.job.stage.index };
  const asking = {
    ...asBefore(view.job.spec.value),
    ...options,
    ref: { principal, id },
    id,
    wanted: { nodes, from: { ref, states: statesOf(view, nodes) } },
    retried: { of: ref.id, stage },
  };
  return begin(ways, asking, platform);
}

/** What the line does not say is as it was. */
const asBefore = ({
  task,
  params,
  canary,
  steps,
  pauseMs,
  maxFailures,
  offline,
  splayMs,
  timeoutMs,
  noop,
  reason,
  ...spec
}: Spec) => ({
  task,
  params: new Map(Object.entries(params)),
  ...(canary !== undefined && { canary: amountOfText(canary) }),
  ...(steps && { steps: steps.map(amountOfText) }),
  ...(spec.maxRunning !== undefined && {
    maxRunning: { kind: 'count', count: spec.maxRunning } as const,
  }),
  pauseMs,
  maxFailures,
  ...(offline !== 'wait' && { offline }),
  ...(splayMs !== undefined && { splayMs }),
  ...(timeoutMs !== undefined && { timeoutMs }),
  ...(noop && { noop }),
  ...(reason !== undefined && { reason }),
});

/** `deploy-42`, `deploy-42-r2`, `deploy-42-r3`, … Undefined: it would be too long. */
function nextId(id: string): string | undefined {
  const [, base = id, count = '1'] = /^(.*)-r(\d{1,4})$/.exec(id) ?? [];
  const next = `${base}-r${Number(count) + 1}`;
  return isJobId(next) ? next : undefined;
}

const FAILED: readonly ShownState[] = FAILURES.filter((state) => state !== 'lost');

function isMeant({ state, document }: TargetView, kinds: readonly RetryKind[]): boolean {
  if (state === 'good') return false;
  if (kinds.length === 0) return true;
  // One that was ended with its job had begun.
  const isFailed = FAILED.includes(state) || (state === 'cancelled' && document?.startedAt !== undefined);
  const kind: RetryKind = state === 'lost' ? 'lost' : isFailed ? 'failed' : 'not-started';
  return kinds.includes(kind);
}

const statesOf = ({ targets }: JobView, nodes: readonly string[]): readonly ShownState[] => {
  const meant = new Set(nodes);
  return [...new Set(targets.filter(({ node }) => meant.has(node)).map(({ state }) => state))];
};
