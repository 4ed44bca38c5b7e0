/** `runlock job start`: looks up the nodes and asks their agents, writes the request, and waits for answers or for the end. */
import { FIRST_CONTACT } from '../../consul/consul.ts';
import { EXIT_CLOSED } from '../../errors.ts';
import type { RunlockError } from '../../errors.ts';
import { jobText } from '../../jobs/keys.ts';
import type { JobRef } from '../../jobs/keys.ts';
import { isWaitedFor } from '../../jobs/resolve.ts';
import { retainJobs } from '../../jobs/retain.ts';
import { startJob } from '../../jobs/starter.ts';
import type { NewRequest } from '../../jobs/starter.ts';
import { startWaiting } from '../../platform/deps.ts';
import { hint } from '../../text/suggested-command.ts';
import { exitOfAnswers } from '../../view/job-outcome.ts';
import { isAnswered, isJobOver, reportJob } from '../../view/job.ts';
import type { JobReport } from '../../view/job.ts';
import { viewJob } from '../../jobs/view.ts';
import type { Platform } from '../platform.ts';
import { printJson, printProse } from '../print.ts';
import type { ConsulWays } from '../with-consul.ts';
import { checkInside } from './inside.ts';
import { findTargets, planOf, toRequest } from './prepare.ts';
import type { Asking } from './prepare.ts';
import type { JobOptions, StartRequest } from './request.ts';
import { follow, tellChanges } from './tell.ts';
import { sayingLeft, watchToEnd } from './watch.ts';

type StartOptions = JobOptions & StartRequest;

export async function start(ways: ConsulWays, options: StartOptions, platform: Platform): Promise<number> {
  const { id, principal } = options;
  const ref: JobRef = { principal, id: id ?? newId(platform) };
  return begin(ways, { ...options, ref }, platform);
}

/** Starts a job, or goes on with one that the same start has begun. */
export async function begin(ways: ConsulWays, asking: Asking, platform: Platform): Promise<number> {
  const { prefix, ref, id, dryRun } = asking;
  const { consul, deps, signal } = ways;
  const options = { ...FIRST_CONTACT, signal };
  // A start that is repeated is the same job, whatever its nodes' agents and the catalogue say by now.
  const known = id === undefined || dryRun ? undefined : await viewJob({ consul, prefix, ref }, options);
  if (known?.isComplete) {
    const { home } = known.job.spec.value;
    const targets = known.targets.map(({ node, stage }) => [node, stage] as const);
    const request = toRequest(asking, { home, targets }, platform);
    return startIn(ways, { asking, request, groups: [home] }, platform);
  }
  const found = await findTargets(ways, asking);
  if (dryRun) return (await import('./dry-run.ts')).printDryRun(ways, { asking, found }, platform);
  const planned = planOf(found, asking);
  const { wish, resolved } = found;
  for (const { node, pausedSince } of resolved)
    if (pausedSince !== undefined) deps.emit({ event: 'job-waits-paused', node, since: pausedSince });
  const nodes = resolved.filter((each) => isWaitedFor(wish, each)).map(({ node }) => node);
  if (nodes.length > 0 && wish.offline) deps.emit({ event: 'job-offline', nodes, offline: wish.offline });
  const groups = resolved.flatMap((each) => each.groups);
  return startIn(ways, { asking, request: toRequest(asking, planned, platform), groups }, platform);
}

/** For what is left of old jobs; the next start goes on. */
const RETAIN_MS = 3_000;

interface Starting {
  readonly asking: Asking;
  readonly request: NewRequest;
  /** Of the nodes' tasks. */
  readonly groups: readonly string[];
}

async function startIn(
  ways: ConsulWays,
  { asking, request, groups }: Starting,
  platform: Platform,
): Promise<number> {
  const { consul, deps, signal } = ways;
  const { prefix, ref, json, watch, waitMs } = asking;
  const { home } = request.spec;
  const nodes = request.targets.map(([node]) => node);
  if (watch) await checkInside(ways, { prefix, nodes, groups }, platform);
  const looker = { consul, deps, prefix, ref, signal };
  const refused = ({ message }: RunlockError) =>
    deps.emit({ event: 'job-refused', job: jobText(ref), detail: { fault: message } });
  const { isNew } = await sayingLeft(ways, looker, () => startJob({ ...looker, refused }, request));
  if (!isNew) deps.emit({ event: 'job-known', job: jobText(ref) });
  else
    await retainJobs({ ...looker, signal: AbortSignal.any([signal, AbortSignal.timeout(RETAIN_MS)]) }, ref);
  if (watch) return watchToEnd(ways, { prefix, ref, home, json }, platform);
  const waiting = startWaiting(deps.clock, waitMs === 0 ? 'forever' : waitMs, signal);
  const tell = json ? () => Promise.resolve() : tellChanges(platform, false);
  try {
    const isEnough = (report: JobReport) => waitMs === 0 || isAnswered(report);
    const report = await sayingLeft(ways, looker, () =>
      follow({ ...looker, signal: waiting.either }, home, { tell, isEnough }),
    );
    await sayEnd(report, asking, platform);
    return exitOfAnswers(report);
  } catch (error) {
    if (!waiting.isOver(error)) throw error;
    return await notAnswered(ways, asking, platform);
  } finally {
    waiting.end();
  }
}

/** By time, so that a list of them is in order: `20260301-120000-k3f9`. */
export function newId({ deps: { clock, random } }: Platform): string {
  const time = new Date(clock.now()).toISOString().replaceAll(/[-:]|\..*/g, '');
  const letters = Array.from({ length: 4 }, () => Math.floor(random() * 36).toString(36)).join('');
  return `${time.replace('T', '-')}-${letters}`;
}

async function sayEnd(report: JobReport, { prefix, json }: Asking, platform: Platform): Promise<void> {
  if (json) return printJson(platform, report);
  if (isJobOver(report)) return;
  await printProse(platform, `to follow it: '${hint(prefix, 'job', 'watch', report.job)}'\n`);
}

/** The request stays: a node may still take it. */
async function notAnswered(
  { consul, deps, signal }: ConsulWays,
  { ref, prefix, json, waitMs }: Asking,
  platform: Platform,
): Promise<number> {
  const view = await viewJob({ consul, prefix, ref }, { ...FIRST_CONTACT, signal });
  const report = view && reportJob(view, { prefix, nowMs: deps.clock.now() });
  if (report && json) await printJson(platform, report);
  const silent = (report?.targets ?? []).filter(({ state }) => state === 'queued').map(({ node }) => node);
  deps.emit({ event: 'job-unanswered', job: jobText(ref), nodes: silent, waitedMs: waitMs });
  return EXIT_CLOSED;
}
