/** `status --node` as text. */
import { assertNever } from '../errors.ts';
import { SESSION_GONE } from '../text/ended.ts';
import { formatAge } from '../text/age.ts';
import { paint } from '../text/style.ts';
import type { Style } from '../text/style.ts';
import { visible } from '../text/visible.ts';
import { wrapLines } from '../text/wrap.ts';
import type { RunView } from '../view/last-run.ts';
import type { TriggerView } from '../view/node-triggers.ts';
import type {
  AgentView,
  NodeReport,
  NodeRunView,
  NodeTaskView,
  NodeWaitView,
  RequestView,
} from '../view/node.ts';
import { renderProblems } from './status.ts';
import { renderTable } from './table.ts';

interface NodeOptions {
  readonly color: boolean;
  readonly columns?: number | undefined;
  /** Wall-clock milliseconds. */
  readonly now: number;
}

/** Ends with a line break. */
export function renderNode(report: NodeReport, options: NodeOptions): string {
  const { node, agent, tasks, runs, waiting, requests, lastRuns, hidden, problems } = report;
  const { color, columns, now } = options;
  const wrapped = (text: string, style?: Style) =>
    wrapLines(visible(text), columns, { lead: '  ', hang: 4 }).map((line) => paint(line, style, color));
  const isIdle = runs.length + waiting.length === 0;
  const idle = hidden.length === 0 ? 'no run is active or waiting' : 'no active or waiting run is known';
  const lines = [
    paint(node, 'bold', color),
    ...agentLines(agent, node, now).flatMap(({ text, style }) => wrapped(text, style)),
    ...runs.flatMap((run) => wrapped(runText(run, now), runStyle(run))),
    ...waiting.flatMap((wait) => wrapped(waitText(wait), 'yellow')),
    ...(isIdle ? wrapped(idle, 'dim') : []),
    ...triggerLines(report.triggers ?? [], now).flatMap((text) => wrapped(text, 'yellow')),
    ...requestTable(requests ?? [], options),
    ...taskTable(tasks ?? [], options),
    ...runTable(lastRuns, options),
    ...hidden.flatMap((each) => wrapped(`something may be missing here: ${each}`, 'yellow')),
    ...renderProblems(problems, options),
  ];
  return `${lines.join('\n')}\n`;
}

type Faults = Pick<Extract<AgentView, { state: 'there' }>, 'faults' | 'moreFaults'>;

/** Files that an agent can't use, a line each. */
export const faultTexts = ({ faults = [], moreFaults }: Faults) => [
  ...faults.map(({ file, why }) => `${file}: ${why}`),
  ...(moreFaults === undefined ? [] : [`${moreFaults} more files`]),
];

interface Said {
  readonly text: string;
  readonly style?: Style;
}

function agentLines(agent: AgentView, node: string, now: number): Said[] {
  switch (agent.state) {
    case 'absent':
      return [
        {
          text: 'agent: not running (since when is not known: Consul keeps no record of it)',
          style: 'yellow',
        },
      ];
    case 'unknown':
      return [{ text: `agent: unknown: ${agent.why}`, style: 'yellow' }];
    case 'there': {
      const { version, since, host, pid, pausedSince, noRequests } = agent;
      const age = (at: string) => formatAge(now - Date.parse(at));
      const paused = `agent: paused ${pausedSince === undefined ? '' : age(pausedSince)} ago; requests and triggers wait until 'runlock agent resume' on ${node}`;
      return [
        { text: `agent: running for ${age(since)}, version ${version} (pid ${pid} on ${host})` },
        ...(pausedSince === undefined ? [] : [{ text: paused, style: 'yellow' } as const]),
        ...(noRequests === undefined
          ? []
          : [{ text: `agent: serves no requests: ${noRequests}`, style: 'yellow' } as const]),
        ...faultTexts(agent).map((each) => ({ text: `agent: skips ${each}`, style: 'yellow' }) as const),
      ];
    }
    default:
      return assertNever(agent);
  }
}

function runText(
  { state, alive, command, since, slots, exitCode, job, missingSince }: NodeRunView,
  now: number,
): string {
  const places = slots.map(({ group, slot }) => `slot ${slot} of ${group}`).join(' and ');
  const age = formatAge(now - Date.parse(since));
  const asked = job === undefined ? '' : ` for job ${job}`;
  const code = exitCode === undefined ? '' : ` (exit code ${exitCode})`;
  if (state !== 'running')
    return `${command} ${stateWords[state]} ${age} ago${code}, still in ${places}${asked}`;
  const noticed =
    missingSince === undefined
      ? ''
      : ` (a waiting run noticed ${formatAge(now - Date.parse(missingSince))} ago)`;
  const lost = alive ? '' : `; ${SESSION_GONE}${noticed}`;
  return `running ${command} in ${places} for ${age}${asked}${lost}`;
}

const stateWords: Readonly<Record<Exclude<NodeRunView['state'], 'running'>, string>> = {
  held: 'was acquired',
  failed: 'failed',
  interrupted: 'was interrupted',
  rebooting: 'began to reboot the node',
  abandoned: 'was abandoned',
  evicted: 'was evicted',
};

const runStyle = ({ state, alive }: NodeRunView): Style =>
  state === 'running' && alive ? 'green' : state === 'held' || state === 'rebooting' ? 'yellow' : 'red';

function waitText({ group, waitedMs, command, place, why }: NodeWaitView): string {
  const what = command === undefined ? 'a run' : command;
  const where = place === undefined ? `for ${group}` : `at place ${place} in the queue of ${group}`;
  return `${what} has been waiting ${where} for ${formatAge(waitedMs)}: ${why}`;
}

/** Those that somebody should know of, a line each. @param now wall-clock milliseconds */
export function triggerLines(triggers: readonly TriggerView[], now: number): string[] {
  return triggers.flatMap((trigger) => {
    const text = triggerText(trigger, now);
    const what = trigger.task === undefined ? `hook ${trigger.hook ?? ''}` : `trigger of ${trigger.task}`;
    return text === undefined ? [] : [`${what} is ${trigger.state}: ${text}`];
  });
}

function triggerText(trigger: TriggerView, now: number): string | undefined {
  const { state, task, failures = 0, nextTryAt, trippedAt, stalledAt, refused, why } = trigger;
  const { stalledWhy } = trigger;
  const age = (at: string) => formatAge(now - Date.parse(at));
  const leftMs = nextTryAt === undefined ? 0 : Date.parse(nextTryAt) - now;
  const next = leftMs > 0 ? `next try in ${formatAge(leftMs)}` : 'it may start again now';
  switch (state) {
    case 'ok':
      return undefined;
    case 'failing':
    case 'stuck':
      return failures === 0 && stalledAt !== undefined
        ? `${stalledText(task, stalledWhy)} (noted ${age(stalledAt)} ago); it tries again every 5 minutes or sooner`
        : `${failures === 1 ? 'its last run' : `its last ${failures} runs`} failed; ${next}`;
    case 'tripped':
      return `it started too often${trippedAt === undefined ? '' : `, ${age(trippedAt)} ago`}; ${next}, or after 'runlock agent reset ${task ?? ''}' on the node`;
    case 'refused':
      return refused
        ? `its last change, ${age(refused.at)} ago, came from its own run (${refused.cause.join(', ')})`
        : 'its last change came from its own run';
    case 'unknown':
      return why ?? '';
    default:
      return assertNever(state);
  }
}

const stalledText = (task: string | undefined, why: string | undefined) =>
  task === undefined
    ? `its posts are not taken${why === undefined ? ", the agent's log says why" : `: ${why}`}`
    : `its starts begin no run${why === undefined ? ', their logs on the node say why' : `: ${why}`}`;

function requestTable(requests: readonly RequestView[], options: NodeOptions): string[] {
  const rows = requests.map(({ job, task = '', state, by = '', askedAt, why, sessionGone }) => ({
    cells: [
      ...[job, task, state ?? (task === '' ? 'gone' : 'unknown'), by],
      askedAt === undefined ? '' : formatAge(options.now - Date.parse(askedAt)),
      [...(sessionGone ? [SESSION_GONE] : []), ...(why === undefined ? [] : [why])].join('; '),
    ],
  }));
  const head = ['REQUEST', 'TASK', 'STATE', 'ASKED BY', 'AGE', 'DETAIL'];
  return rows.length === 0 ? [] : renderTable(head, rows, { ...options, flexible: 'DETAIL' });
}

/** Tasks of a node, as its agent describes them; also of `task list --node`. */
export function taskTable(tasks: readonly NodeTaskView[], options: NodeOptions): string[] {
  const rows = tasks.map(({ name, groups, allow, on, description = '' }) => ({
    cells: [name, groups.join(', '), allow.join(', '), on.join(', '), description],
  }));
  const head = ['TASK', 'GROUPS', 'ALLOWS', 'RUNS ON', 'DESCRIPTION'];
  return rows.length === 0 ? [] : renderTable(head, rows, { ...options, flexible: 'DESCRIPTION' });
}

function runTable(runs: readonly RunView[], { now, ...options }: NodeOptions): string[] {
  const rows = runs.map(({ group, outcome, exitCode, endedAt, ranMs, command }) => ({
    cells: [
      ...[group, outcome, exitCode === undefined ? '' : String(exitCode)],
      ...[formatAge(now - Date.parse(endedAt)), formatAge(ranMs), command],
    ],
    style: outcome === 'succeeded' ? undefined : ('red' as const),
  }));
  const head = ['LAST RUN IN', 'OUTCOME', 'EXIT', 'ENDED', 'RAN', 'COMMAND'];
  return rows.length === 0 ? [] : renderTable(head, rows, { ...options, flexible: 'COMMAND' });
}
