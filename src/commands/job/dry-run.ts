/** `--dry-run`: what each node would do, what it would wait for, and when its turn would come. Writes nothing. */
import { FIRST_CONTACT } from '../../consul/consul.ts';
import { RunlockError, exitStatus, isRunlockError } from '../../errors.ts';
import { isWaitedFor, obstacleCode, obstacleText } from '../../jobs/resolve.ts';
import type { Obstacle, Resolved } from '../../jobs/resolve.ts';
import { amountOf } from '../../jobs/plan.ts';
import { NO_STAGE, delayOf } from '../../jobs/stage.ts';
import { groupKeys } from '../../lock/keys.ts';
import { decodeRun } from '../../lock/records.ts';
import { formatAge } from '../../text/age.ts';
import { visible } from '../../text/visible.ts';
import { forecast, typicalOf } from '../../view/forecast.ts';
import type { Forecast } from '../../view/forecast.ts';
import type { GroupView } from '../../view/report.ts';
import { readGroups } from '../../view/read.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import type { ConsulWays } from '../with-consul.ts';
import { placeTargets } from './prepare.ts';
import type { Asking, Found } from './prepare.ts';

export async function printDryRun(
  ways: ConsulWays,
  { asking, found }: { readonly asking: Asking; readonly found: Found },
  platform: Platform,
): Promise<number> {
  const { wish, resolved } = found;
  const targets = placeTargets(found, asking);
  const names = [...new Set(resolved.flatMap(({ groups }) => groups))].sort();
  const seen = await readSeen(ways, asking.prefix, names);
  const services = await readServices(ways, resolved);
  const byNode = new Map(resolved.map((each) => [each.node, each]));
  const stages = Math.max(1, ...targets.map(([, stage]) => stage + 1));
  const fit = targets.filter(([node]) => byNode.get(node)?.obstacles.length === 0);
  const placed = targets.filter(([, stage]) => stage !== NO_STAGE).length;
  const told = forecast({
    targets: fit.map(([node, stage]) => ({
      node,
      stage,
      groups: byNode.get(node)?.groups ?? [],
      slots: byNode.get(node)?.task?.slots,
      delayMs: delayOf(node, asking.splayMs),
      noop: asking.noop ?? false,
    })),
    ...seen,
    maxRunning: asking.maxRunning && amountOf(asking.maxRunning, placed),
    pauseMs: asking.pauseMs ?? 0,
    nowMs: ways.deps.clock.now(),
  });
  const turns = new Map(seen.isKnown ? told.map((each) => [each.node, each]) : []);
  const stageOf = new Map(targets);
  const nodes = resolved.map(({ node, groups, obstacles, pausedSince, task }) => ({
    node,
    ok: obstacles.length === 0,
    groups,
    stage: stageOf.get(node) ?? 0,
    ...(pausedSince !== undefined && { pausedSince }),
    ...(obstacles.length > 0 && { why: obstacles.map((each) => obstacleText(each, wish)) }),
    ...(obstacles.length === 0 && turns.get(node)),
    ...(task && task.when.length > 0 && { when: task.when }),
    ...(task?.services && { services: task.services }),
  }));
  const { json, task, offline } = asking;
  const lines = [
    ...nodes.map((node) => lineOf(node, { task, stages, offline })),
    ...seen.problems.map(visible),
    ...services.map(serviceText),
  ];
  const data = {
    kind: 'dry-run',
    task,
    principal: wish.principal,
    stages,
    nodes,
    ...(services.length > 0 && { services }),
    ...(seen.problems.length > 0 && { problems: seen.problems }),
  };
  await print(platform, { json, data, text: () => `${lines.join('\n')}\n`, isProse: true });
  const [first] = resolved.filter((each) => !isWaitedFor(wish, each)).flatMap(({ obstacles }) => obstacles);
  return first ? exitOf(first) : 0;
}

const exitOf = (obstacle: Obstacle): number => exitStatus(new RunlockError(obstacleCode(obstacle), ''));

interface Seen {
  readonly groups: ReadonlyMap<string, GroupView>;
  readonly typicalMs: ReadonlyMap<string, number>;
  readonly isKnown: boolean;
  /** What could not be read. */
  readonly problems: readonly string[];
}

/** Who may ask for a job need not be able to look at its groups. */
async function readSeen(
  { consul, deps, signal }: ConsulWays,
  prefix: string,
  names: readonly string[],
): Promise<Seen> {
  const nothing = { groups: new Map<string, GroupView>(), typicalMs: new Map<string, number>() };
  if (names.length === 0) return { ...nothing, isKnown: true, problems: [] };
  try {
    const now = deps.clock.now();
    const report = await readGroups(consul, { prefix, groups: names, now, signal });
    const typical = await Promise.all(
      names.map(async (name) => [name, await typicalIn(consul, groupKeys(prefix, name), signal)] as const),
    );
    return {
      groups: new Map(report.groups.map((view) => [view.group, view])),
      typicalMs: new Map(typical.flatMap(([name, ms]) => (ms === undefined ? [] : [[name, ms]]))),
      isKnown: true,
      problems: report.problems,
    };
  } catch (error) {
    if (!isRunlockError(error, 'forbidden')) throw error;
    const problem = `what the nodes would wait for is unknown: ${error.message}`;
    return { ...nothing, isKnown: false, problems: [problem] };
  }
}

async function typicalIn(
  consul: ConsulWays['consul'],
  keys: ReturnType<typeof groupKeys>,
  signal: AbortSignal,
): Promise<number | undefined> {
  const rule = `key_prefix "${keys.prefix}" { policy = "read" }`;
  const options = { ...FIRST_CONTACT, signal, rule };
  // A listing leaves out what may not be read; a read of one key is refused.
  await consul.get(`${keys.prefix}.may-read`, options);
  const { entries } = await consul.list(keys.run(''), options);
  return typicalOf(
    entries.flatMap((entry) => {
      try {
        const { outcome, ranMs } = decodeRun(entry);
        return outcome === 'succeeded' ? [ranMs] : [];
      } catch (error) {
        if (!isRunlockError(error, 'incompatible')) throw error;
        return [];
      }
    }),
  );
}

interface ServiceSeen {
  readonly service: string;
  readonly total: number;
  readonly offline: readonly string[];
  readonly problem?: string;
}

/** How many may be offline only the node's own files say. */
async function readServices(
  { consul, signal }: ConsulWays,
  resolved: readonly Resolved[],
): Promise<readonly ServiceSeen[]> {
  const services = [...new Set(resolved.flatMap(({ task }) => task?.services ?? []))].filter(
    (name) => name !== 'auto',
  );
  if (services.length === 0) return [];
  const { statusServices } = await import('../../view/services.ts');
  const views = await statusServices(consul, { services, bounds: { maxOffline: 1 } }, signal);
  return views.map(({ service, total, offline, problem }) => ({
    service,
    total,
    offline: offline.map(({ node }) => node),
    ...(problem !== undefined && { problem }),
  }));
}

function serviceText({ service, total, offline, problem }: ServiceSeen): string {
  if (problem !== undefined) return `service ${visible(service)}: ${visible(problem)}`;
  const away = offline.length === 0 ? 'all are healthy' : `offline: ${offline.slice(0, 5).join(', ')}`;
  return `service ${visible(service)}, whose health the runs wait for: ${total} instances, ${away}`;
}

type NodeLine = Partial<Forecast> & {
  readonly node: string;
  readonly groups: readonly string[];
  readonly stage: number;
  readonly why?: readonly string[];
  readonly pausedSince?: string;
  readonly when?: readonly string[];
};

interface About {
  readonly task: string;
  readonly stages: number;
  readonly offline: Asking['offline'];
}

function lineOf(line: NodeLine, { task, stages, offline }: About): string {
  const { node, groups, stage, why, pausedSince, when } = line;
  if (why && groups.length === 0 && offline !== undefined && stage === NO_STAGE)
    return `${node}: offline, and left out: ${why.join('; ')}`;
  if (why) return `${node}: would not take it: ${why.join('; ')}`;
  const parts = [
    `would take ${task}, in ${groups.join(' and ')}`,
    ...(stages > 1 ? [`stage ${stage + 1} of ${stages}`] : []),
    ...(pausedSince === undefined ? [] : ['once its agent is resumed: it is paused']),
    ...(when ? [`when ${when.join(' and ')}`] : []),
    turnText(line),
  ];
  return `${node}: ${visible(parts.filter((part) => part !== '').join(', '))}`;
}

function turnText({ waits, startsInMs, ahead = 0 }: NodeLine): string {
  if (!waits) return '';
  if (waits.length > 0) return `but ${waits.join('; ')}`;
  if (startsInMs === 0) return 'at once';
  const place = ahead === 0 ? '' : `behind ${ahead} ${ahead === 1 ? 'other' : 'others'}`;
  if (startsInMs === undefined) return place || 'nobody can tell when';
  return `in about ${formatAge(startsInMs)}${place === '' ? '' : ` (${place})`}`;
}
