/** `runlock job start`: asks the nodes' agents first, writes the request, and waits for the answers or for the end. */
import { FIRST_CONTACT } from '../../consul/consul.ts';
import { EXIT_CLOSED, RunlockError, exitStatus } from '../../errors.ts';
import { readAgents } from '../../jobs/read-agents.ts';
import { jobText } from '../../jobs/keys.ts';
import type { JobRef } from '../../jobs/keys.ts';
import { homeOf, obstacleCode, obstacleText, resolve } from '../../jobs/resolve.ts';
import type { Obstacle, Resolved } from '../../jobs/resolve.ts';
import { startJob } from '../../jobs/starter.ts';
import type { NewRequest } from '../../jobs/starter.ts';
import { causesIn } from '../../lock/causes.ts';
import { startWaiting } from '../../platform/deps.ts';
import { hint } from '../../text/suggested-command.ts';
import { exitOfAnswers } from '../../view/job-outcome.ts';
import { isAnswered, isJobOver, reportJob } from '../../view/job.ts';
import type { JobReport } from '../../view/job.ts';
import { viewJob } from '../../jobs/view.ts';
import type { Platform } from '../platform.ts';
import { print, printJson, printProse } from '../print.ts';
import type { ConsulWays } from '../with-consul.ts';
import { findHome } from './home.ts';
import { checkInside } from './inside.ts';
import type { JobOptions, StartRequest } from './request.ts';
import { follow, tellChanges } from './tell.ts';
import { sayingLeft, watchToEnd } from './watch.ts';

type StartOptions = JobOptions & StartRequest;

export async function start(ways: ConsulWays, options: StartOptions, platform: Platform): Promise<number> {
  const { prefix, principal, nodes, dryRun } = options;
  const { consul, signal } = ways;
  const ref: JobRef = { principal, id: options.id ?? newId(platform) };
  const looker = { consul, deps: ways.deps, prefix, ref, signal };
  // A start that is repeated is the same job, whatever its nodes' agents say by now.
  const known = options.id === undefined ? undefined : await findHome(looker);
  if (known === undefined || dryRun) {
    const seen = await readAgents(consul, { prefix, nodes }, { ...FIRST_CONTACT, signal });
    const resolved = resolve(options, seen);
    if (dryRun) return printDryRun(resolved, options, platform);
    const home = homeOf(options, resolved);
    for (const { node, pausedSince } of resolved)
      if (pausedSince !== undefined) ways.deps.emit({ event: 'job-waits-paused', node, since: pausedSince });
    return startIn(ways, { ref, home, options, groups: resolved.flatMap(({ groups }) => groups) }, platform);
  }
  return startIn(ways, { ref, home: known, options, groups: [known] }, platform);
}

interface Starting {
  readonly ref: JobRef;
  readonly home: string;
  readonly options: StartOptions;
  /** Of the nodes' tasks. */
  readonly groups: readonly string[];
}

async function startIn(
  ways: ConsulWays,
  { ref, home, options, groups }: Starting,
  platform: Platform,
): Promise<number> {
  const { consul, deps, signal } = ways;
  const { prefix, nodes, json, watch, waitMs } = options;
  if (watch) await checkInside(ways, { prefix, nodes, groups }, platform);
  const looker = { consul, deps, prefix, ref, signal };
  const { isNew } = await sayingLeft(ways, looker, () =>
    startJob(looker, toRequest({ ref, home, options }, platform)),
  );
  if (!isNew) deps.emit({ event: 'job-known', job: jobText(ref) });
  if (watch) return watchToEnd(ways, { prefix, ref, home, json }, platform);
  const waiting = startWaiting(deps.clock, waitMs === 0 ? 'forever' : waitMs, signal);
  const tell = json ? () => Promise.resolve() : tellChanges(platform, false);
  try {
    const isEnough = (report: JobReport) => waitMs === 0 || isAnswered(report);
    const report = await sayingLeft(ways, looker, () =>
      follow({ ...looker, signal: waiting.either }, home, { tell, isEnough }),
    );
    await sayEnd(report, options, platform);
    return exitOfAnswers(report);
  } catch (error) {
    if (!waiting.isOver(error)) throw error;
    return await notAnswered(ways, { ref, options }, platform);
  } finally {
    waiting.end();
  }
}

/** Sorted, so that a repeated start that names the nodes in another order is the same. */
function toRequest({ ref, home, options }: Omit<Starting, 'groups'>, platform: Platform): NewRequest {
  const { task, params, reason, timeoutMs, expiresMs, nodes } = options;
  const { clock } = platform.deps;
  const chain = causesIn(platform.env)?.cause;
  return {
    ref,
    spec: {
      nonce: platform.newRunId(),
      task,
      params: Object.fromEntries(params),
      home,
      maxFailures: 0,
      offline: 'wait',
      pauseMs: 0,
      until: new Date(clock.latest() + expiresMs).toISOString(),
      ...(timeoutMs !== undefined && { timeoutMs }),
      ...(chain && { chain }),
      ...(reason !== undefined && { reason }),
      by: platform.operator(),
      at: new Date(clock.now()).toISOString(),
    },
    targets: [...new Set(nodes)].sort().map((node) => [node, 0] as const),
  };
}

/** By time, so that a list of them is in order: `20260301-120000-k3f9`. */
function newId({ deps: { clock, random } }: Platform): string {
  const time = new Date(clock.now()).toISOString().replaceAll(/[-:]|\..*/g, '');
  const letters = Array.from({ length: 4 }, () => Math.floor(random() * 36).toString(36)).join('');
  return `${time.replace('T', '-')}-${letters}`;
}

async function sayEnd(report: JobReport, { prefix, json }: StartOptions, platform: Platform): Promise<void> {
  if (json) return printJson(platform, report);
  if (isJobOver(report)) return;
  await printProse(platform, `to follow it: '${hint(prefix, 'job', 'watch', report.job)}'\n`);
}

/** The request stays: a node may still take it. */
async function notAnswered(
  { consul, deps, signal }: ConsulWays,
  { ref, options: { prefix, json, waitMs } }: { readonly ref: JobRef; readonly options: StartOptions },
  platform: Platform,
): Promise<number> {
  const view = await viewJob({ consul, prefix, ref }, { ...FIRST_CONTACT, signal });
  const report = view && reportJob(view, { prefix, nowMs: deps.clock.now() });
  if (report && json) await printJson(platform, report);
  const silent = (report?.targets ?? []).filter(({ state }) => state === 'queued').map(({ node }) => node);
  deps.emit({ event: 'job-unanswered', job: jobText(ref), nodes: silent, waitedMs: waitMs });
  return EXIT_CLOSED;
}

async function printDryRun(
  resolved: readonly Resolved[],
  wish: StartOptions,
  platform: Platform,
): Promise<number> {
  const nodes = resolved.map(({ node, groups, obstacles, pausedSince }) => ({
    node,
    ok: obstacles.length === 0,
    groups,
    ...(pausedSince !== undefined && { pausedSince }),
    ...(obstacles.length > 0 && { why: obstacles.map((each) => obstacleText(each, wish)) }),
  }));
  const { json, task, principal } = wish;
  const lines = nodes.map(({ node, groups, why, pausedSince }) =>
    why
      ? `${node}: would not take it: ${why.join('; ')}`
      : `${node}: would take ${task}, in ${groups.join(' and ')}${pausedSince === undefined ? '' : ', once its agent is resumed: it is paused'}`,
  );
  const data = { kind: 'dry-run', task, principal, nodes };
  await print(platform, { json, data, text: () => `${lines.join('\n')}\n`, isProse: true });
  const [first] = resolved.flatMap(({ obstacles }) => obstacles);
  return first ? exitOf(first) : 0;
}

const exitOf = (obstacle: Obstacle): number => exitStatus(new RunlockError(obstacleCode(obstacle), ''));
