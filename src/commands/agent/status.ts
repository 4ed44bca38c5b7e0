/** How this node's agent is, by what it left on this host: it needs no Consul, which may be what is wrong. */
import { formatAge, clockTime } from '../../text/age.ts';
import { isOfLiveProcess } from '../../agent/state-folder.ts';
import type { Pause, StateFolder } from '../../agent/state-folder.ts';
import type { Host } from '../../platform/deps.ts';
import { reasonOf } from '../../errors.ts';
import { folderProblems } from './folders.ts';
import type { Folder } from './folders.ts';

export interface AgentStatus {
  /** Undefined: no agent of this host says anything here. */
  readonly report: Report | undefined;
  /** Whether the process that says so is alive. */
  readonly isRunning: boolean;
  readonly isRegistered: boolean;
  /** Consul has not answered it for longer than its session lives. */
  readonly isSilent: boolean;
  /** When Consul answered it last, in milliseconds since the epoch. */
  readonly contactMs: number | undefined;
  readonly pause: Pause | undefined;
  readonly folder: string;
  /** What keeps its runs from starting, a line each. */
  readonly problems: readonly string[];
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
  /** Absent: an older runlock wrote it. */
  readonly logDir?: string;
  /** Of its session, in milliseconds. */
  readonly ttlMs?: number;
}

/** Longer than an agent is ever without an answer, in milliseconds. */
const SILENT_MS = 90_000;

export function statusOf(state: StateFolder, host: Host, nowMs: number): AgentStatus {
  const report = state.report() as Report | undefined;
  const isRunning = isOfLiveProcess(report, host);
  const contactMs = state.contactMs();
  const isSilent =
    isRunning && contactMs !== undefined && nowMs - contactMs > Math.max(SILENT_MS, report?.ttlMs ?? 0);
  return {
    report,
    isRunning,
    isRegistered: isRunning && report?.place.kind === 'registered' && !isSilent,
    isSilent,
    contactMs,
    pause: pauseIn(state),
    folder: state.path,
    problems: report && isRunning ? folderProblems(foldersOf(report, state.path)) : [],
  };
}

const foldersOf = ({ logDir }: Report, stateFolder: string): readonly Folder[] => [
  ...(logDir === undefined ? [] : [{ what: 'log folder', path: logDir }]),
  { what: "agent's folder", path: stateFolder },
];

function pauseIn(state: StateFolder): Pause | undefined {
  try {
    return state.paused();
  } catch (error) {
    return { since: new Date(0).toISOString(), by: 'unknown', reason: reasonOf(error) };
  }
}

export function statusReport(status: AgentStatus): object {
  const { report, isRunning, isRegistered, contactMs, pause, problems } = status;
  const { place, version, pid, since, status: text, tasks, faults } = report ?? {};
  return {
    running: isRunning,
    registered: isRegistered,
    ...(report && { node: place?.node, version, pid, since, status: text, tasks, faults }),
    ...(contactMs !== undefined && { contactAt: new Date(contactMs).toISOString() }),
    ...(problems.length > 0 && { problems }),
    ...(pause && { paused: pause }),
  };
}

export function statusText(agent: AgentStatus, nowMs: number): string {
  const { report, isRunning, isSilent, contactMs, pause, folder, problems } = agent;
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
    isSilent ? `${status}: as of its last contact with Consul` : status,
    ...(contactMs === undefined
      ? []
      : [
          `last answer from Consul: ${formatAge(nowMs - contactMs)} ago${isSilent ? '; it waits for Consul' : ''}`,
        ]),
    ...problems,
    ...paused,
    `tasks: ${tasks.length === 0 ? 'none' : tasks.join(', ')}`,
    ...faults.map((fault) => `skipped ${fault}`),
  ]);
}

const lines = (all: readonly string[]) => all.map((line) => `${line}\n`).join('');
