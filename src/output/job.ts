/** Jobs as text: one job with its targets, a list of jobs, and a line for each change of one. */
import { assertNever } from '../errors.ts';
import { formatAge, momentText } from '../text/age.ts';
import { SESSION_GONE } from '../text/ended.ts';
import { paint } from '../text/style.ts';
import type { Style } from '../text/style.ts';
import { quote } from '../text/suggested-command.ts';
import { visible } from '../text/visible.ts';
import { wrapLines } from '../text/wrap.ts';
import type { JobChange } from '../view/job-changes.ts';
import type { JobState, JobReport, TargetReport } from '../view/job.ts';
import { selectionText } from '../view/selection.ts';
import type { JobsReport } from '../view/read-jobs.ts';
import { moreText } from './more.ts';
import { renderTable } from './table.ts';

interface JobOptions {
  readonly color: boolean;
  readonly columns?: number | undefined;
  /** Width at which to break sentences; undefined: not at all. */
  readonly sentenceColumns?: number | undefined;
  /** Wall-clock milliseconds. */
  readonly now: number;
  /** Show at most this many targets; by default all. */
  readonly most?: number;
}

type StateName = TargetReport['state'];

/** What needs people first. */
const ORDER: readonly StateName[] = [
  ...(['unreadable', 'failed', 'unhealthy', 'timed-out', 'lost', 'refused', 'offline', 'expired'] as const),
  ...(['cancelled', 'not-started', 'rebooting', 'running', 'waiting', 'accepted', 'queued', 'good'] as const),
];

const styles: Readonly<Partial<Record<StateName, Style>>> = {
  unreadable: 'red',
  failed: 'red',
  unhealthy: 'red',
  'timed-out': 'red',
  lost: 'red',
  refused: 'yellow',
  offline: 'yellow',
  expired: 'yellow',
  cancelled: 'yellow',
  'not-started': 'yellow',
  rebooting: 'yellow',
  running: 'green',
  accepted: 'dim',
  queued: 'dim',
};

/** `2 good, 1 not started` */
export function statesText(states: JobReport['states']): string {
  const parts = ORDER.flatMap((state) => {
    const count = states[state] ?? 0;
    return count === 0 ? [] : [`${count.toLocaleString('en-US')} ${stateWord(state)}`];
  });
  return parts.reverse().join(', ') || 'no targets';
}

/** `not-started` in a sentence. */
const stateWord = (state: StateName) => state.replace('-', ' ');

const jobWords: Readonly<Record<JobState, string>> = {
  incomplete: 'incomplete: its request is not written completely',
  open: 'open',
  stopping: 'stopping',
  stopped: 'stopped',
  done: 'done',
};

/** `job show`. Ends with a line break. */
export function renderJob(view: JobReport, options: JobOptions): string {
  const { color, now, most = Infinity } = options;
  const sorted = [...view.targets].sort(
    (a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || (a.node < b.node ? -1 : 1),
  );
  const shown = sorted.slice(0, most);
  const rows = shown.map((target) => ({ cells: cellsOf(target, now), style: styles[target.state] }));
  const lines = [
    ...heading(view, now).flatMap((line, i) =>
      wrapLines(line, options.sentenceColumns, { lead: i === 0 ? '' : '  ', hang: 4 }),
    ),
    ...(rows.length === 0 ? [] : renderTable(HEAD, rows, { ...options, flexible: 'DETAIL' })),
    ...moreText(sorted.length - shown.length),
    ...view.problems.map((problem) => paint(`  ${visible(problem)}`, 'yellow', color)),
  ];
  return `${lines.join('\n')}\n`;
}

const HEAD = ['NODE', 'STATE', 'EXIT', 'TIME', 'DETAIL'];

const cellsOf = (target: TargetReport, now: number): string[] => [
  target.node,
  target.state,
  target.exitCode === undefined ? '' : String(target.exitCode),
  tookText(target, now),
  detailOf(target),
];

/** How long it ran, or has been running, or has been waiting. */
function tookText({ state, acceptedAt, startedAt, endedAt }: TargetReport, now: number): string {
  const from = startedAt ?? (state === 'accepted' || state === 'waiting' ? acceptedAt : undefined);
  if (from === undefined) return '';
  return formatAge((endedAt === undefined ? now : Date.parse(endedAt)) - Date.parse(from));
}

function detailOf({ state, why, lastLine, late, served, run, sessionGone }: TargetReport): string {
  const ofRun = served && why === undefined && run !== undefined ? [`served by run ${run}`] : [];
  const line = lastLine === undefined || (state === 'good' && why !== undefined) ? [] : [lastLine];
  const after = late === undefined ? [] : [`its run ended later: ${late}`];
  const gone = sessionGone ? [`${SESSION_GONE}; ${RECORDED_BY}`] : [];
  return [...gone, ...(why === undefined ? [] : [why]), ...ofRun, ...line, ...after].map(trimmed).join('; ');
}

/** Of a run of a job that has lost its session. */
const RECORDED_BY = "its agent records that, or 60s of 'runlock job watch' do";

const trimmed = (text: string) => text.trim();

function heading(view: JobReport, now: number): string[] {
  const { job, state, states, home, by, reason, askedAt, until, of } = view;
  const age = (at: string) => formatAge(now - Date.parse(at));
  const why = reason === undefined ? '' : `: ${visible(reason)}`;
  const goOn = view.stopped?.kill ? 'its runs are being ended' : 'runs that are under way go on to their end';
  const isOpen = state === 'open' || state === 'incomplete';
  return [
    `${job}: ${jobWords[state]}${state === 'stopping' ? `: ${goOn}` : ''}; ${statesText(states)}`,
    ...(view.stopped ? [stopText(view.stopped, now)] : []),
    `task ${taskText(view)} in ${visible(home)}, asked by ${visible(by)} ${age(askedAt)} ago${why}`,
    ...[rolloutText(view, now) ?? []].flat(),
    ...(of === undefined ? [] : [`retries ${visible(of)}`]),
    ...(isOpen ? [`starts nothing after ${momentText(until, now).replace(/^until /, '')}`] : []),
  ];
}

const nodesText = (count: number) => (count === 1 ? '1 node' : `${count.toLocaleString('en-US')} nodes`);

/** ` (service web, tag blue)`; named nodes alone are seen anyhow. */
function foundText(selection: NonNullable<JobReport['selection']>): string {
  const isNamed = Object.keys(selection).length === 1 && selection.named !== undefined;
  return isNamed ? '' : ` (${selectionText(selection)})`;
}

const stagesText = (stages: readonly number[]) =>
  stages.map((size) => size.toLocaleString('en-US')).join(', then ');

/** Undefined: all nodes at once, as the slots allow, up to the first failure. */
function rolloutText(view: JobReport, now: number): string | undefined {
  const { stages, stage, notBefore, pauseMs, maxRunning, maxFailures, splayMs, selection } = view;
  const leftMs = notBefore === undefined ? 0 : Date.parse(notBefore) - now;
  const at =
    stage === undefined || stages.length < 2
      ? ''
      : ` (now stage ${stage + 1}${leftMs > 0 ? `, starts in ${formatAge(leftMs)}` : ''})`;
  const parts = [
    ...(selection && foundText(selection) !== '' ? [`of ${selectionText(selection)}`] : []),
    ...(stages.length < 2 ? [] : [`stages of ${stagesText(stages)}${at}`]),
    ...(pauseMs === undefined ? [] : [`${formatAge(pauseMs)} between them`]),
    ...(maxRunning === undefined ? [] : [`at most ${maxRunning} at once`]),
    ...(splayMs === undefined ? [] : [`starts spread over ${formatAge(splayMs)}`]),
    ...(maxFailures === 0 ? [] : [`stops after ${maxFailures + 1} failures`]),
  ];
  return parts.length === 0 ? undefined : parts.join('; ');
}

const taskText = ({ task, params, noop }: Pick<JobReport, 'task' | 'params' | 'noop'>): string =>
  [
    task,
    ...Object.entries(params).map(([name, value]) => visible(quote(`${name}=${value}`))),
    ...(noop ? ['(no-op)'] : []),
  ].join(' ');

const stopReasons: Readonly<Record<NonNullable<JobReport['stopped']>['why'], string>> = {
  failures: 'more targets failed than the job allows',
  unproven: 'a stage ended without a good target',
  cancelled: 'cancelled',
  expired: 'its time was over',
  gone: 'its request was deleted',
};

function stopText({ why, by, reason, at, kill }: NonNullable<JobReport['stopped']>, now: number): string {
  const who = by === undefined ? '' : ` by ${visible(by)}`;
  const because = reason === undefined ? '' : ` (${visible(reason)})`;
  const killed = kill ? '; its runs are to be ended too' : '';
  return `stopped ${formatAge(now - Date.parse(at))} ago: ${stopReasons[why]}${who}${because}${killed}`;
}

/** `job list`. Ends with a line break. */
export function renderJobs({ prefix, jobs, problems }: JobsReport, options: JobOptions): string {
  const { color, now, sentenceColumns } = options;
  const head = ['JOB', 'STATE', 'TASK', 'GROUP', 'NODES', 'STATES', 'ASKED BY', 'AGE'];
  const rows = jobs.map(({ job, state, task, home, total, states, by, askedAt }) => ({
    cells: [
      ...[job, state ?? 'unknown', task, home, total.toLocaleString('en-US')],
      Object.keys(states).length === 0 ? '' : statesText(states),
      by,
      formatAge(now - Date.parse(askedAt)),
    ],
    style: state && jobStyles[state],
  }));
  const none = problems.length > 0 ? [] : [`no jobs below ${prefix}/; 'runlock job start' starts one`];
  const lines = [
    ...(rows.length > 0 ? renderTable(head, rows, { ...options, flexible: 'ASKED BY' }) : none),
    ...problems.flatMap((problem) =>
      wrapLines(visible(problem), sentenceColumns, { lead: '  ', hang: 4 }).map((line) =>
        paint(line, 'yellow', color),
      ),
    ),
  ];
  return `${lines.join('\n')}\n`;
}

const jobStyles: Readonly<Partial<Record<JobState, Style>>> = {
  open: 'green',
  stopping: 'yellow',
  stopped: 'yellow',
  done: 'dim',
};

/** One change, without a line break. */
export function changeText(change: JobChange, now: number): string {
  switch (change.event) {
    case 'job': {
      const { job, task, home, targets } = change;
      const { stages, selection } = change;
      const found = selection ? foundText(selection) : '';
      const order = stages.length < 2 ? '' : `: ${stagesText(stages)}`;
      return `${job}: ${task} on ${nodesText(targets)} in ${visible(home)}${found}${order}`;
    }
    case 'stage': {
      const { job, stage, stages, notBefore } = change;
      const size = nodesText(stages[stage] ?? 0);
      const leftMs = notBefore === undefined ? 0 : Date.parse(notBefore) - now;
      const when = leftMs > 0 ? `, starts in ${formatAge(leftMs)}` : '';
      return `${job}: stage ${stage + 1} of ${stages.length}, ${size}${when}`;
    }
    case 'target':
      return targetText(change, now);
    case 'stopped':
      return `${change.job} ${stopText(change, now)}`;
    case 'problem':
      return visible(change.problem);
    case 'over':
      return `${change.job} is over: ${statesText(change.states)}`;
    default:
      return assertNever(change);
  }
}

/** `web01: failed (exit code 7) after 4s: no space left on device` */
export function targetText(target: TargetReport, now: number): string {
  const { node, state, exitCode, endedAt, startedAt } = target;
  const code = exitCode === undefined || state === 'good' ? '' : ` (exit code ${exitCode})`;
  const took = endedAt === undefined || startedAt === undefined ? '' : ` after ${tookText(target, now)}`;
  const detail = visible(detailOf(target));
  return `${node}: ${stateWord(state)}${code}${took}${detail === '' ? '' : `: ${detail}`}`;
}
