/** What an agent knows of its host and of its place in Consul, in one value, so that one wait hears of each change. */
import type { AgentDocument, AgentTask } from '../jobs/documents.ts';
import type { Setting } from '../state/setting.ts';
import { clockTime } from '../text/age.ts';
import type { Hook } from './hook/definition.ts';
import type { Pause } from './state-folder.ts';
import type { Task } from './task/definition.ts';
import { publishedFaults } from './task/faults.ts';

export interface ServedTask {
  readonly task: Task;
  /** What others may know of it. */
  readonly shown: AgentTask;
  /** Whether a run is good only once its services are healthy. */
  readonly needsHealth: boolean;
  /** What a good run sets. */
  readonly publish: readonly Setting[];
  /** The paths of the states that stand while it runs. */
  readonly during: readonly string[];
}

export interface TaskFiles {
  readonly tasks: readonly ServedTask[];
  readonly hooks?: readonly Hook[];
  /** Why other files are no tasks, a line each. */
  readonly faults: readonly string[];
}

/** Whether requests are served; `unknown`: Consul has not been asked yet. */
export type Serving =
  | { readonly kind: 'served' }
  | { readonly kind: 'refused'; readonly why: string }
  | { readonly kind: 'unknown' };

/** Whether the agent's key in Consul is its own. */
export type Place =
  { readonly kind: 'registered'; readonly node: string } | { readonly kind: 'away'; readonly why: string };

export interface Known {
  readonly place: Place;
  readonly files: TaskFiles;
  readonly pause: Pause | undefined;
  readonly serving: Serving;
  /** By part of the agent, why it fails now. */
  readonly failing: Readonly<Record<string, string>>;
}

/** Everybody who may ask for one of the tasks, each once, sorted. */
export const principalsOf = ({ tasks }: TaskFiles): readonly string[] =>
  [...new Set(tasks.flatMap(({ shown }) => shown.allow))].sort();

export type Self = Omit<
  AgentDocument,
  'node' | 'tasks' | 'noRequests' | 'pausedSince' | 'faults' | 'moreFaults'
>;

/** What the agent publishes. */
export function documentOf(self: Self, node: string, { files, pause, serving }: Known): AgentDocument {
  return {
    node,
    ...self,
    ...(serving.kind === 'refused' && { noRequests: serving.why }),
    ...(pause && { pausedSince: pause.since }),
    tasks: files.tasks.map(({ shown }) => shown),
    ...publishedFaults(files.faults),
  };
}

/** One line on how the agent is, for `systemctl status` and `runlock agent status`. */
export function statusText({ place, files, pause, serving, failing }: Known): string {
  if (place.kind === 'away') return `not registered in Consul: ${place.why}`;
  const tasks = files.tasks.length === 1 ? '1 task' : `${files.tasks.length} tasks`;
  return [
    `registered as ${place.node}, ${tasks}`,
    ...(pause ? [`paused by ${pause.by} since ${clockTime(pause.since)}`] : []),
    ...(serving.kind === 'refused' ? [`serves no requests: ${serving.why}`] : []),
    ...Object.entries(failing).map(([part, fault]) => `${part}: ${fault}`),
  ].join('; ');
}
