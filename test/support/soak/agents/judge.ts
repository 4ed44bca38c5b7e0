// What a soak with agents has shown, judged: by what commands noted themselves and what was seen in Consul. Pure.
import { judgeJob } from '../../history/jobs.ts';
import type { JobLook } from '../../history/jobs.ts';
import type { Command } from './commands.ts';
import { publishedBy, publishing } from './nodes.ts';
import type { NodePlan } from './nodes.ts';
import type { Observed, RecordedRun, StateChange } from './observed.ts';
import type { JobPlan } from './plan.ts';
import type { Hit } from './world.ts';

export interface AgentsHistory extends Observed {
  readonly nodes: readonly NodePlan[];
  readonly commands: readonly Command[];
  readonly jobs: readonly JobTrace[];
  readonly hits: readonly Hit[];
}

export interface JobTrace {
  readonly name: string;
  readonly job: JobPlan;
  /** None: it was never there. */
  readonly looks: readonly JobLook[];
}

/** Everything that is wrong. */
export function judgeAgents(history: AgentsHistory): readonly string[] {
  const { nodes, commands, jobs } = history;
  return [
    ...jobs.flatMap((job) => judgeTrace(job, history)),
    ...strangers(history),
    ...nodes.flatMap((node) => atOnce(commands.filter((each) => each.node === node.name))),
    ...nodes.flatMap((node) => missedBy(node, history)),
    ...nodes.flatMap((node) => needlessOf(node, history)),
    ...unearned(history),
  ];
}

function judgeTrace({ name, job, looks }: JobTrace, history: AgentsHistory): readonly string[] {
  const own = history.commands.filter((each) => each.job === name);
  if (looks.length === 0) return own.map(({ node }) => `${name} ran on ${node}, and was never there`);
  const commands = own.map((each) => ({ ...each, isOfJob: true as const }));
  const broken = judgeJob({ commands, looks, named: job.nodes, allowing: job.nodes });
  return [
    ...broken.map(({ promise, what }) => `${name}: promise ${promise} is broken: ${what}`),
    ...job.nodes.flatMap((node) => judgeTarget({ name, node, looks, own }, history)),
  ];
}

interface TargetTrace {
  readonly name: string;
  readonly node: string;
  readonly looks: readonly JobLook[];
  readonly own: readonly Command[];
}

/** What the target's state says, and what its command did. */
function judgeTarget({ name, node, looks, own }: TargetTrace, { hits }: AgentsHistory): readonly string[] {
  const command = own.find((each) => each.node === node);
  const { state = 'none', run } = looks.at(-1)?.targets.get(node)?.value ?? {};
  const noted = command?.exitCode === undefined ? 'no end' : `exit code ${command.exitCode}`;
  const facts = `${name} on ${node} is ${state}; its command: ${command ? `${command.run}, ${noted}` : 'none'}`;
  if (command && run !== command.run) return [`${facts}, and the target names ${run ?? 'no run'}`];
  const hit = hits.find(
    (each) =>
      each.node === node &&
      isReason(each, name) &&
      (command === undefined || each.untilMs >= command.startMs),
  );
  const isWhole = command?.exitCode !== undefined;
  switch (state) {
    case 'good':
      return isWhole && [0, 194].includes(command.exitCode) ? [] : [facts];
    case 'failed':
    case 'timed-out':
      return command && (command.exitCode !== 0 || hit) ? [] : [facts];
    case 'lost':
      return hit ? [] : [`${facts}, and nothing was done to that node`];
    case 'cancelled':
      return command && !hit ? [`${facts}, and nobody cancelled it with its run`] : [];
    default:
      return command ? [facts] : [];
  }
}

/** Shorter troubles on the way to Consul are no reason for anything. */
const LONG_MS = 15_000;
const CUTS = ['pause-server', 'pause-agent', 'restart-agent', 'network'];

function isReason({ kind, fromMs, untilMs }: Hit, job: string): boolean {
  if (kind.startsWith('clear ')) return false;
  if (kind.startsWith('cancel ')) return kind === `cancel ${job}`;
  return !CUTS.includes(kind) || untilMs - fromMs >= LONG_MS;
}

/** Commands of jobs that nobody has asked for. */
function strangers({ commands, jobs }: AgentsHistory): readonly string[] {
  const names = new Set(jobs.map(({ name }) => name));
  return commands.flatMap(({ job, node }) =>
    job === undefined || names.has(job) ? [] : [`${node} ran for ${job}`],
  );
}

/** Clocks of 10 ms, and a beat that a killed shell still notes. */
const SLACK_MS = 50;

function atOnce(commands: readonly Command[]): readonly string[] {
  const inTime = [...commands].sort((a, b) => a.startMs - b.startMs);
  return inTime.flatMap((one, i) =>
    inTime
      .slice(i + 1)
      .filter((other) => other.startMs + SLACK_MS < one.lastMs)
      .map((other) => `${one.node} ran ${one.task} (${one.run}) and ${other.task} (${other.run}) at once`),
  );
}

export const triggeredOf = (
  { name }: Pick<NodePlan, 'name'>,
  { commands }: Pick<AgentsHistory, 'commands'>,
) =>
  commands
    .filter(({ node, task }) => node === name && task === 'react')
    .sort((a, b) => a.startMs - b.startMs);

const isGood = ({ run, exitCode }: Command, records: readonly RecordedRun[]) =>
  exitCode === 0 && records.some((each) => each.run === run && each.outcome === 'succeeded');

/** 7: changes that no good run has followed. */
export function missedBy(node: NodePlan, history: AgentsHistory): readonly string[] {
  const good = triggeredOf(node, history).filter((each) => isGood(each, history.records));
  const lastMs = good.at(-1)?.startMs ?? -Infinity;
  return node.on.flatMap((condition) => {
    const ms = condition.startsWith('state:')
      ? lastChange(condition.slice('state:'.length), history)?.fromMs
      : newRoundMs(condition, history, lastMs);
    return ms !== undefined && ms > lastMs + SLACK_MS
      ? [`${node.name} did not run after ${condition} changed at ${ms}, but at ${lastMs} for the last time`]
      : [];
  });
}

function lastChange(path: string, { states }: AgentsHistory): StateChange | undefined {
  const last = states.findLast((each) => each.path === path);
  return last?.change === undefined ? undefined : last;
}

/** When the last of these nodes' runs began, if all have had a good one since the trigger's last run. */
function newRoundMs(condition: string, history: AgentsHistory, sinceMs: number): number | undefined {
  const [, who, group = ''] = /^good:(.+)@(.+)$/.exec(condition) ?? [];
  const records = history.records.filter(
    (each) => each.group === group && (who === '*' || each.node === who),
  );
  const last = new Map(records.map((each) => [each.node, each]));
  const starts = [...last.values()].map(({ run, outcome }) =>
    outcome === 'succeeded' ? history.commands.find((each) => each.run === run)?.startMs : undefined,
  );
  const all = starts.flatMap((ms) => ms ?? []);
  const isRound =
    all.length > 0 && all.length === starts.length && all.every((ms) => ms > sinceMs + SLACK_MS);
  return isRound ? Math.max(...all) : undefined;
}

/** A look of the agent and one of the soak may be so far apart. */
const LAG_MS = 5_000;

/** 7: runs without anything new since the good run before. The first look of a node may start one, too. */
function needlessOf(node: NodePlan, history: AgentsHistory): readonly string[] {
  const runs = triggeredOf(node, history);
  return runs.flatMap((run, i) => {
    const before = runs.slice(0, i).findLast((each) => isGood(each, history.records));
    const news = node.on.flatMap((condition) => newsTimes(condition, history));
    const sinceMs = before ? sawMs(before, history) : -Infinity;
    const isAsked = news.some(
      ({ fromMs, seenMs }) => fromMs <= run.startMs + SLACK_MS && seenMs + LAG_MS >= sinceMs,
    );
    return isAsked ? [] : [`${node.name} ran react at ${run.startMs}, and nothing had changed`];
  });
}

/** Between what a run looks at last and its command: as long as it asks again where it hears nothing, or is stopped. */
const LONGEST_START_MS = 40_000;

/** The earliest moment of what a run has seen: what came later may have been news to it or not. */
function sawMs({ node, startMs }: Command, { hits }: AgentsHistory): number {
  const isHit = hits.some(
    (each) => each.node === node && each.fromMs < startMs && each.untilMs > startMs - LONGEST_START_MS,
  );
  return isHit ? startMs - LONGEST_START_MS : startMs;
}

function newsTimes(condition: string, { states, records, commands }: AgentsHistory) {
  if (condition.startsWith('state:'))
    return states.filter(({ path, change }) => `state:${path}` === condition && change !== undefined);
  const [, who, group] = /^good:(.+)@(.+)$/.exec(condition) ?? [];
  return records
    .filter(
      (each) => each.group === group && each.outcome === 'succeeded' && (who === '*' || each.node === who),
    )
    .map(({ run, seenMs }) => {
      const began = commands.find((each) => each.run === run)?.startMs;
      return { fromMs: began ?? -Infinity, seenMs };
    });
}

/** 2: what is published is that of a run whose command succeeded, of the task that publishes it. */
function unearned({ states, nodes, commands }: AgentsHistory): readonly string[] {
  return nodes.flatMap((node) =>
    states
      .filter(({ path, change }) => path === publishedBy(node) && change !== undefined)
      .flatMap(({ run, value }) => {
        const by = commands.find((each) => each.run === run);
        const isRight = by?.exitCode === 0 && by.node === node.name && by.task === publishing(node);
        return isRight
          ? []
          : [`${publishedBy(node)} became ${value ?? ''} by ${run ?? 'nobody'}, which did not succeed`];
      }),
  );
}

/** How many targets ended how. */
export function countStates(jobs: readonly JobTrace[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const { job, looks } of jobs) {
    const last = looks.at(-1);
    if (!last) continue;
    const { why = last.stage.value.kind } = last.stage.value;
    for (const node of job.nodes) {
      const own = last.targets.get(node)?.value.state;
      const state =
        own === undefined || own === 'accepted' || own === 'waiting' ? `not started (${why})` : own;
      counts.set(state, (counts.get(state) ?? 0) + 1);
    }
  }
  return counts;
}
