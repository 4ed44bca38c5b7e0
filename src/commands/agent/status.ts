/** How this node's agent is, by what it left on this host: it needs no Consul, which may be what is wrong. */
import { formatAge, clockTime } from '../../text/age.ts';
import { isOfLiveProcess } from '../../agent/state-folder.ts';
import type { Pause, StateFolder } from '../../agent/state-folder.ts';
import type { Host } from '../../platform/deps.ts';
import { reasonOf } from '../../errors.ts';

export interface AgentStatus {
  /** Undefined: no agent of this host says anything here. */
  readonly report: Report | undefined;
  /** Whether the process that says so is alive. */
  readonly isRunning: boolean;
  readonly isRegistered: boolean;
  readonly pause: Pause | undefined;
  readonly folder: string;
}

/** What the agent writes into its folder. */
export interface Report {
  readonly version: string;
  readonly pid: number;
  readonly startTime: string;
  readonly bootId: string;
  readonly since: string;
  readonly status: string;
  readonly place: { readonly kind: string; readonly node?: string };
  readonly tasks: readonly string[];
  readonly faults: readonly string[];
}

export function statusOf(state: StateFolder, host: Host): AgentStatus {
  const report = state.report() as Report | undefined;
  const isRunning = isOfLiveProcess(report, host);
  return {
    report,
    isRunning,
    isRegistered: isRunning && report?.place.kind === 'registered',
    pause: pauseIn(state),
    folder: state.path,
  };
}

function pauseIn(state: StateFolder): Pause | undefined {
  try {
    return state.paused();
  } catch (error) {
    return { since: new Date(0).toISOString(), by: 'unknown', reason: reasonOf(error) };
  }
}

export function statusReport({ report, isRunning, isRegistered, pause }: AgentStatus): object {
  const { place, version, pid, since, status, tasks, faults } = report ?? {};
  return {
    running: isRunning,
    registered: isRegistered,
    ...(report && { node: place?.node, version, pid, since, status, tasks, faults }),
    ...(pause && { paused: pause }),
  };
}

export function statusText({ report, isRunning, pause, folder }: AgentStatus, nowMs: number): string {
  const paused = pause
    ? [
        `paused by ${pause.by} since ${clockTime(pause.since)}${pause.reason === undefined ? '' : `: ${pause.reason}`}; to end it: runlock agent resume`,
      ]
    : [];
  if (!report) return lines([`no agent has run here (nothing in ${folder})`, ...paused]);
  const { pid, since, version, status, tasks, faults } = report;
  if (!isRunning)
    return lines([`not running; its last words (runlock ${version}, pid ${pid}): ${status}`, ...paused]);
  return lines([
    `running for ${formatAge(nowMs - Date.parse(since))} (pid ${pid}, runlock ${version})`,
    status,
    ...paused,
    `tasks: ${tasks.length === 0 ? 'none' : tasks.join(', ')}`,
    ...faults.map((fault) => `skipped ${fault}`),
  ]);
}

const lines = (all: readonly string[]) => all.map((line) => `${line}\n`).join('');
