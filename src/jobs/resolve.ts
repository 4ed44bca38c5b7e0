/**
 * Which nodes can serve a request, by what their agents say of themselves: told before anything is written. The node
 * itself decides again, by its own files. Pure.
 */
import { RunlockError, assertNever } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import { nearest } from '../text/nearest.ts';
import { visible } from '../text/visible.ts';
import type { AgentDocument, AgentFault, AgentTask, Spec } from './documents.ts';

/** What is asked, and of whom. */
export interface Wish {
  readonly task: string;
  readonly principal: string;
  readonly params: ReadonlyMap<string, string>;
  readonly nodes: readonly string[];
  /** It only tries. */
  readonly noop?: boolean;
  /** What becomes of nodes without an agent; undefined: nothing is started if there is one. */
  readonly offline?: Spec['offline'] | undefined;
}

/** What was read of a node's agent. */
export type AgentSeen =
  | { readonly kind: 'there'; readonly document: AgentDocument }
  | { readonly kind: 'absent' }
  /** Only a newer version understands what it says. */
  | { readonly kind: 'unreadable'; readonly why: string };

/** Why a node can't serve the request. */
export type Obstacle =
  | { readonly kind: 'absent' }
  | { readonly kind: 'unreadable'; readonly why: string }
  | { readonly kind: 'no-requests'; readonly why: string }
  | { readonly kind: 'no-task'; readonly meant: string | undefined }
  /** Its file is there, and can't be used; of no tasks at all, perhaps their folder. */
  | { readonly kind: 'broken-task'; readonly faults: readonly AgentFault[] }
  | { readonly kind: 'not-allowed'; readonly allow: readonly string[] }
  | { readonly kind: 'no-noop' }
  | { readonly kind: 'unknown-param'; readonly name: string; readonly params: readonly string[] }
  /** Its task has another home than that of the first node. */
  | { readonly kind: 'other-home'; readonly home: string; readonly of: string; readonly first: string };

/** One node of a request. */
export interface Resolved {
  readonly node: string;
  /** Of the node's task, by path; the first is the home of its jobs. Empty: it has no such task. */
  readonly groups: readonly string[];
  /** What its agent says of the task; undefined: it says nothing of it. */
  readonly task?: AgentTask;
  /** Empty: the node can serve the request. */
  readonly obstacles: readonly Obstacle[];
  /** Since when its agent is paused: it serves the request once it is resumed. */
  readonly pausedSince?: string;
}

/** Each node once, in the order in which they were named. */
export function resolve(wish: Wish, agents: ReadonlyMap<string, AgentSeen>): readonly Resolved[] {
  const found = [...new Set(wish.nodes)].map((node) => resolveOne(wish, node, agents.get(node)));
  const first = found.find(({ groups }) => groups.length > 0);
  const [of = ''] = first?.groups ?? [];
  return found.map((each) => {
    const [home] = each.groups;
    if (home === undefined || home === of) return each;
    const other: Obstacle = { kind: 'other-home', home, of, first: first?.node ?? '' };
    return { ...each, obstacles: [...each.obstacles, other] };
  });
}

function resolveOne(
  { task, principal, params, noop = false }: Wish,
  node: string,
  seen: AgentSeen = { kind: 'absent' },
): Resolved {
  if (seen.kind !== 'there') return { node, groups: [], obstacles: [seen] };
  const { tasks, faults = [], noRequests, pausedSince } = seen.document;
  const paused = pausedSince === undefined ? {} : { pausedSince };
  const obstacles: Obstacle[] = noRequests === undefined ? [] : [{ kind: 'no-requests', why: noRequests }];
  const own = tasks.find(({ name }) => name === task);
  if (!own) {
    const names = tasks.map(({ name }) => name);
    const broken = faults.filter(({ file }) => file === `${task}.toml` || file.startsWith('/'));
    const missing: Obstacle =
      broken.length > 0
        ? { kind: 'broken-task', faults: broken }
        : { kind: 'no-task', meant: nearest(task, names) };
    return { node, groups: [], obstacles: [...obstacles, missing], ...paused };
  }
  return {
    node,
    groups: own.groups,
    task: own,
    obstacles: [
      ...obstacles,
      ...ofTask(own, principal, params),
      ...(noop && !own.noop ? [{ kind: 'no-noop' } as const] : []),
    ],
    ...paused,
  };
}

function ofTask(
  { allow, params: known }: AgentTask,
  principal: string,
  params: ReadonlyMap<string, string>,
): Obstacle[] {
  const refused: Obstacle[] = allow.includes(principal) ? [] : [{ kind: 'not-allowed', allow }];
  const unknown = [...params.keys()].filter((name) => !known.includes(name));
  return [...refused, ...unknown.map((name): Obstacle => ({ kind: 'unknown-param', name, params: known }))];
}

/** Why, and what to do, as a part of a sentence that begins with the node. */
export function obstacleText(obstacle: Obstacle, { task, principal, offline }: Wish): string {
  switch (obstacle.kind) {
    case 'absent':
      return offline === undefined
        ? "no runlock agent is running there; start 'runlock agent' on the node, or say with --offline what is to become of it"
        : 'no runlock agent is running there';
    case 'unreadable':
      return visible(obstacle.why);
    case 'no-requests':
      return `its agent serves no requests: ${visible(obstacle.why)}`;
    case 'no-task': {
      const meant = obstacle.meant === undefined ? '' : `; did you mean '${visible(obstacle.meant)}'?`;
      return `it has no task ${task}${meant}`;
    }
    case 'broken-task':
      return `it can't use its task ${task}: ${obstacle.faults.map(({ file, why }) => visible(`${file}: ${why}`)).join(', ')}`;
    case 'not-allowed': {
      const names = obstacle.allow.map(visible).join(', ');
      const instead = names === '' ? 'nobody may ask for it' : `only ${names} may`;
      return `its task ${task} does not allow requests of ${principal} (${instead}); see 'allow' in the task's file`;
    }
    case 'no-noop':
      return `its task ${task} can't be tried: write noop = ["/program", …] into its file`;
    case 'unknown-param': {
      const names = obstacle.params.map(visible).join(', ');
      return `its task ${task} has no parameter ${visible(obstacle.name)} (${names === '' ? 'it has none' : `it has ${names}`})`;
    }
    case 'other-home':
      return `its task ${task} runs in ${visible(obstacle.home)}, but in ${visible(obstacle.of)} on ${obstacle.first}; start one job for each`;
    default:
      return assertNever(obstacle);
  }
}

const codes: Readonly<Record<Obstacle['kind'], ErrorCode>> = {
  absent: 'config',
  unreadable: 'incompatible',
  'no-requests': 'config',
  'no-task': 'config',
  'broken-task': 'config',
  'not-allowed': 'forbidden',
  'no-noop': 'config',
  'unknown-param': 'usage',
  'other-home': 'usage',
};

export const obstacleCode = ({ kind }: Obstacle): ErrorCode => codes[kind];

/** Nodes that one message names; `--dry-run` names all. */
const MOST_NAMED = 5;

/** The home of the job. @throws RunlockError: some node can't serve the request; nothing was written. */
export function homeOf(wish: Wish, nodes: readonly Resolved[]): string {
  const unfit = nodes.filter((each) => !isWaitedFor(wish, each) && each.obstacles.length > 0);
  const [first] = unfit.flatMap(({ obstacles }) => obstacles);
  const [home] = nodes.flatMap(({ groups }) => groups.slice(0, 1));
  if (!first && home !== undefined) return home;
  const named = unfit
    .slice(0, MOST_NAMED)
    .map(({ node, obstacles }) => `${node}: ${obstacles.map((each) => obstacleText(each, wish)).join('; ')}`);
  const more = unfit.length > MOST_NAMED ? ` (and ${unfit.length - MOST_NAMED} more)` : '';
  if (!first)
    throw new RunlockError(
      'config',
      `nothing was started: no runlock agent is running on any of the ${nodes.length} nodes, so the group of task ${wish.task} is not known; start 'runlock agent' on them`,
    );
  throw new RunlockError(obstacleCode(first), `nothing was started: ${named.join('. ')}${more}`);
}

/** Only its agent is missing, and the start says what is to become of such a node. */
export const isWaitedFor = ({ offline }: Pick<Wish, 'offline'>, { obstacles }: Resolved): boolean =>
  offline !== undefined && obstacles.some(({ kind }) => kind === 'absent');

/**
 * A failed run keeps its slot in the group, so with as many failures as slots no other node could start.
 * @throws RunlockError `usage`
 */
export function checkFailures(maxFailures: number, nodes: readonly Resolved[]): void {
  const scarce = nodes.find(({ task }) => task?.keptSlots !== undefined && task.keptSlots <= maxFailures);
  if (!scarce?.task) return;
  const { keptSlots = 0, name } = scarce.task;
  throw new RunlockError(
    'usage',
    `--max-failures ${maxFailures} needs more than ${maxFailures} slots, because each failed run keeps its slot; task ${name} of ${scarce.node} has ${keptSlots} (raise slots in its file, or write hold = "none")`,
  );
}
