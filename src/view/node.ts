/** One node: its agent, what runs there, what it waits for, what is asked of it, from stored records. Pure. */
import type { Entry } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import type { AgentDocument, AgentFault, AgentTask, Spec } from '../jobs/documents.ts';
import { agentKey, isJobId, isPrincipal, jobKeys, jobText, requestKeys } from '../jobs/keys.ts';
import type { JobRef } from '../jobs/keys.ts';
import { decodeAgent, decodeSpec, decodeStage, decodeTarget, decodeTargets } from '../jobs/records.ts';
import { shownState } from '../jobs/stage.ts';
import type { ShownState } from '../jobs/stage.ts';
import { parseKey } from '../lock/keys.ts';
import { waitOf, waitsIn } from './job-waits.ts';
import type { NodeWaitView } from './job-waits.ts';
import { viewRun } from './last-run.ts';
import type { RunView } from './last-run.ts';
import { viewTriggers } from './node-triggers.ts';
import type { TriggerView } from './node-triggers.ts';
import type { GroupView, SlotState, SlotView } from './report.ts';

/** What `status --node --json` prints. Times are ISO 8601 in UTC; names ending in Ms are milliseconds. */
export interface NodeReport {
  readonly v: 1;
  readonly prefix: string;
  readonly node: string;
  /** When all of it was read, by the reader's clock. */
  readonly at: string;
  readonly agent: AgentView;
  /** As its agent says. Absent: no agent is there, or what it says can't be read. */
  readonly tasks?: readonly NodeTaskView[];
  /** Runs under way, and claims of this node that keep slots. */
  readonly runs: readonly NodeRunView[];
  readonly waiting: readonly NodeWaitView[];
  /** What is asked of the node and has not ended. Absent: this token may not read it. */
  readonly requests?: readonly RequestView[];
  /** Of the tasks that start by themselves, and of hooks. Absent: this token may not read them. */
  readonly triggers?: readonly TriggerView[];
  /** One for each group in which it ran. */
  readonly lastRuns: readonly RunView[];
  /** What this token may not read, and the rule that it needs: what is missing there is not known to be absent. */
  readonly hidden: readonly string[];
  /** Records that could not be read. */
  readonly problems: readonly string[];
}

/** What its agent says of a task. */
export type NodeTaskView = AgentTask;

/** `absent`: Consul keeps no record of when it was last there. `unknown`: `why` says why that can't be told. */
export type AgentView =
  | {
      readonly state: 'there';
      readonly version: string;
      readonly since: string;
      readonly host: string;
      readonly pid: number;
      readonly bootId: string;
      /** An operator paused it. */
      readonly pausedSince?: string;
      /** Absent: it serves requests. */
      readonly noRequests?: string;
      /** Files that it can't use as tasks; absent: none. */
      readonly faults?: readonly AgentFault[];
      readonly moreFaults?: number;
    }
  | { readonly state: 'absent' }
  | { readonly state: 'unknown'; readonly why: string };

/** A run of the node in its slots, or a claim that it left. */
export interface NodeRunView {
  readonly state: Exclude<SlotState, 'free' | 'locked' | 'unreadable'>;
  /** Whether a live session holds its locks. */
  readonly alive: boolean;
  readonly run: string;
  readonly command: string;
  readonly since: string;
  readonly slots: readonly { readonly group: string; readonly slot: number }[];
  readonly exitCode?: number;
  /** Host name of the run's machine. */
  readonly host?: string;
  /** When another run first saw that its session is gone. */
  readonly missingSince?: string;
  /** The job that it runs for. */
  readonly job?: string;
}

export type { NodeWaitView };

export interface RequestView {
  /** `ops/deploy-42` */
  readonly job: string;
  /** Absent: the request is gone; the agent removes what points to it. */
  readonly task?: string;
  readonly home?: string;
  readonly state?: ShownState;
  readonly acceptedAt?: string;
  /** Why it was refused, what its run waits for. */
  readonly why?: string;
  /** As of a job's target. */
  readonly waitsIn?: string;
  readonly place?: number;
  readonly run?: string;
  /** As of a job's target. */
  readonly sessionGone?: true;
  readonly by?: string;
  readonly reason?: string;
  readonly askedAt?: string;
  readonly until?: string;
}

/** What was read. */
export interface NodeFound {
  readonly entries: readonly Entry[];
  /** The groups as `status` shows them, from the same entries. */
  readonly groups: readonly GroupView[];
  /** Why this token may not read the agent's key; undefined: it may. */
  readonly agentHidden: string | undefined;
  /** The same of requests. */
  readonly requestsHidden: string | undefined;
  /** The same of triggers. */
  readonly triggersHidden: string | undefined;
  /** What is hidden beside. */
  readonly hidden: readonly string[];
}

export interface NodeOptions {
  readonly prefix: string;
  readonly node: string;
  /** Wall-clock milliseconds. */
  readonly now: number;
}

export function viewNode(found: NodeFound, { prefix, node, now }: NodeOptions): NodeReport {
  const { entries, groups, agentHidden, requestsHidden, triggersHidden, hidden } = found;
  const problems: string[] = [];
  const attempt = <T>(decode: () => T): T | undefined => {
    try {
      return decode();
    } catch (error) {
      if (!isRunlockError(error, 'incompatible')) throw error;
      problems.push(error.message);
      return undefined;
    }
  };
  const byKey = new Map(entries.map((entry) => [entry.key, entry]));
  const agentEntry = byKey.get(agentKey(prefix, node));
  // Without a session nobody holds the key, whatever it says.
  const isThere = agentEntry?.session !== undefined;
  const document = isThere ? attempt(() => decodeAgent(agentEntry)) : undefined;
  const requests =
    requestsHidden === undefined ? viewRequests({ prefix, node, byKey, attempt }, entries) : undefined;
  const jobOf = new Map((requests ?? []).flatMap(({ run, job }) => (run === undefined ? [] : [[run, job]])));
  const lastRuns = entries.flatMap((entry) => {
    const { group = '', key } = parseKey(prefix, entry.key) ?? {};
    return key?.kind === 'run' && key.node === node ? (attempt(() => viewRun(group, entry)) ?? []) : [];
  });
  const own = [agentHidden, requestsHidden, triggersHidden];
  const waiting = groups.flatMap(waitsIn).flatMap((each) => (each.node === node ? [each.wait] : []));
  const runs = runsOf(groups, node);
  return {
    v: 1,
    prefix,
    node,
    at: new Date(now).toISOString(),
    agent: agentView(document, { isThere, hidden: agentHidden }),
    ...(document && { tasks: document.tasks }),
    runs: runs.map((run) => {
      const job = jobOf.get(run.run);
      return job === undefined ? run : { ...run, job };
    }),
    waiting,
    ...(requests && { requests: requests.map((request) => withRun(withWait(request, waiting), runs)) }),
    ...(triggersHidden === undefined && { triggers: viewTriggers({ prefix, node, now }, entries) }),
    lastRuns: lastRuns.sort((a, b) => (a.endedAt < b.endedAt ? 1 : -1)),
    hidden: [...own.filter((each) => each !== undefined), ...hidden],
    problems,
  };
}

function agentView(
  document: AgentDocument | undefined,
  { isThere, hidden }: { readonly isThere: boolean; readonly hidden: string | undefined },
): AgentView {
  if (document) {
    const { version, since, host, pid, bootId, pausedSince, noRequests, faults, moreFaults } = document;
    return {
      ...({ state: 'there', version, since, host, pid, bootId } as const),
      ...(pausedSince !== undefined && { pausedSince }),
      ...(noRequests !== undefined && { noRequests }),
      ...(faults && { faults }),
      ...(moreFaults !== undefined && { moreFaults }),
    };
  }
  if (isThere) return { state: 'unknown', why: "it is there, but what it says can't be read" };
  return hidden === undefined ? { state: 'absent' } : { state: 'unknown', why: hidden };
}

/** By run: a run in several groups has a slot in each. */
function runsOf(groups: readonly GroupView[], node: string): NodeRunView[] {
  const runs = new Map<string, NodeRunView>();
  for (const { group, slots } of groups) {
    for (const slot of slots) {
      const claim = slot.node === node ? claimOf(slot) : undefined;
      if (!claim) continue;
      // Each group ends its claim of the run on its own, so they may be in different states for a moment.
      const name = `${claim.run} ${claim.state}`;
      const known = runs.get(name);
      const slots = [...(known?.slots ?? []), { group, slot: slot.slot }];
      runs.set(name, { ...claim, alive: claim.alive && (known?.alive ?? true), slots });
    }
  }
  return [...runs.values()];
}

/** Undefined: the slot has no claim, or none that can be read. */
function claimOf({ state, alive, run, command, since, exitCode, host, missingSince }: SlotView) {
  if (state === 'free' || state === 'locked' || state === 'unreadable') return undefined;
  if (run === undefined || command === undefined || since === undefined) return undefined;
  const code = exitCode === undefined ? {} : { exitCode };
  return {
    state,
    alive,
    run,
    command,
    since,
    ...code,
    ...(host !== undefined && { host }),
    ...(missingSince !== undefined && { missingSince }),
  };
}

/** Its run waits in the group that the job belongs to. */
const withWait = (request: RequestView, waiting: readonly NodeWaitView[]): RequestView => ({
  ...request,
  ...waitOf(
    request,
    waiting.filter(({ group }) => group === request.home),
  ),
});

/** A run whose session is gone may have ended, whatever its job says. */
const withRun = (request: RequestView, runs: readonly NodeRunView[]): RequestView =>
  request.state === 'running' &&
  runs.some(({ run, state, alive }) => run === request.run && state === 'running' && !alive)
    ? { ...request, sessionGone: true }
    : request;

interface RequestReading {
  readonly prefix: string;
  readonly node: string;
  readonly byKey: ReadonlyMap<string, Entry>;
  readonly attempt: <T>(decode: () => T) => T | undefined;
}

/** What points to the node, the oldest first. */
function viewRequests(reading: RequestReading, entries: readonly Entry[]): RequestView[] {
  const { prefix, node } = reading;
  const root = `${prefix}/.requests/`;
  const pointers = entries.flatMap(({ key, createIndex }) => {
    if (!key.startsWith(root)) return [];
    const [principal = '', folder, name, id = '', ...more] = key.slice(root.length).split('/');
    const isOwn = folder === 'inbox' && name === node && more.length === 0;
    return isOwn && isPrincipal(principal) && isJobId(id) ? [{ principal, id, createIndex }] : [];
  });
  return pointers
    .sort((a, b) => a.createIndex - b.createIndex)
    .map((pointer) => viewRequest(reading, pointer, entries));
}

function viewRequest(
  { prefix, node, byKey, attempt }: RequestReading,
  ref: JobRef,
  entries: readonly Entry[],
): RequestView {
  const keys = requestKeys(prefix, ref.principal);
  const job = jobText(ref);
  const stored = byKey.get(keys.spec(ref.id));
  const spec = stored && attempt(() => decodeSpec(stored));
  // The agent drops what points to a request that is gone, and leaves alone what it can't read.
  if (!spec) return stored ? { job, ...unreadable(stored) } : { job };
  const below = keys.targetsPrefix(ref.id);
  const lists = entries.filter(({ key }) => key.startsWith(below));
  const targets = lists.flatMap((entry) => attempt(() => decodeTargets(entry))?.targets ?? []);
  const own = targets.find(([name]) => name === node);
  if (!own) return { job, ...specOf(spec), why: 'its request does not name this node' };
  const [, targetStage] = own;
  return { job, ...specOf(spec), ...stateOf({ prefix, node, byKey, attempt }, { ref, spec, targetStage }) };
}

const specOf = ({ task, home, by, reason, at, until }: Spec) => ({
  task,
  home,
  by,
  askedAt: at,
  until,
  ...(reason !== undefined && { reason }),
});

const unreadable = ({ key }: Entry) =>
  ({ state: 'unreadable', why: `what stands in ${key} can't be read` }) as const;

/** Nothing if the job's own keys can't be read. */
function stateOf(
  { prefix, node, byKey, attempt }: RequestReading,
  { ref, spec, targetStage }: { readonly ref: JobRef; readonly spec: Spec; readonly targetStage: number },
): Pick<RequestView, 'state' | 'acceptedAt' | 'why' | 'run'> {
  const keys = jobKeys(prefix, spec.home, ref);
  const [stageEntry, own] = [byKey.get(keys.stage), byKey.get(keys.node(node))];
  const stage = stageEntry && attempt(() => decodeStage(stageEntry));
  if (!stage) return {};
  const document = own && attempt(() => decodeTarget(own));
  if (own && !document) return unreadable(own);
  return {
    state: shownState(document, targetStage, stage),
    ...(document?.acceptedAt !== undefined && { acceptedAt: document.acceptedAt }),
    ...(document?.why !== undefined && { why: document.why }),
    ...(document?.run !== undefined && { run: document.run }),
  };
}
