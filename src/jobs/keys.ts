/** Keys of requests, jobs, agents and triggers under `<prefix>/` (docs/protocol.md, "Keys"). Pure. */
import { isName } from '../text/words.ts';

/** One job: whose it is, and its name, which is one of that principal's. Written `ops/deploy-42`. */
export interface JobRef {
  readonly principal: string;
  readonly id: string;
}

/** As a part of a key, of a file's name and of a log's name. */
const JOB_ID = /^[a-z0-9][a-z0-9-]{0,63}$/;

export const isJobId = (id: string): boolean => JOB_ID.test(id);

/** A principal is a part of a key, as a node's name is. */
export const isPrincipal = (name: string): boolean => isName(name) && name.length <= 64;

export const jobText = ({ principal, id }: JobRef): string => `${principal}/${id}`;

/** What a principal asks for; nobody else may write below it. */
export interface RequestKeys {
  /** Ends with a slash. */
  readonly prefix: string;
  readonly rule: string;
  spec(id: string): string;
  /** Ends with a slash. */
  targetsPrefix(id: string): string;
  targets(id: string, chunk: number): string;
  /** All pointers of a node; ends with a slash. */
  inboxPrefix(node: string): string;
  pointer(node: string, id: string): string;
  /** An empty key of the node's agent, so that a watch on an empty inbox wakes only for that inbox. */
  open(node: string): string;
  /** All who read logs of the node; ends with a slash. In its inbox, so that its agent hears of them. */
  logsPrefix(node: string): string;
  /** What one of them wants to read now. */
  logRequest(node: string, reader: string): string;
}

export function requestKeys(prefix: string, principal: string): RequestKeys {
  const base = `${prefix}/.requests/${principal}`;
  return {
    prefix: `${base}/`,
    rule: `key_prefix "${base}/" { policy = "write" }`,
    spec: (id) => `${base}/spec/${id}`,
    targetsPrefix: (id) => `${base}/targets/${id}/`,
    targets: (id, chunk) => `${base}/targets/${id}/${chunk}`,
    inboxPrefix: (node) => `${base}/inbox/${node}/`,
    pointer: (node, id) => `${base}/inbox/${node}/${id}`,
    open: (node) => `${base}/inbox/${node}/.open`,
    logsPrefix: (node) => `${base}/inbox/${node}/.logs/`,
    logRequest: (node, reader) => `${base}/inbox/${node}/.logs/${reader}`,
  };
}

/** Where a job is, below the home group of its task, so that the nodes of that group may move it on. */
export interface JobKeys {
  /** Ends with a slash. */
  readonly prefix: string;
  readonly stage: string;
  readonly tally: string;
  /** Ends with a slash. */
  readonly nodesPrefix: string;
  node(node: string): string;
  /** Ends with a slash. */
  readonly tailPrefix: string;
  tail(node: string): string;
  /** Somebody looks at the job's output. Below the stage, so that who follows the stage hears of it. */
  watched(watch: string): string;
}

export function jobKeys(prefix: string, home: string, { principal, id }: JobRef): JobKeys {
  const base = `${prefix}/${home}/.jobs/${principal}/${id}`;
  return {
    prefix: `${base}/`,
    stage: `${base}/stage`,
    tally: `${base}/tally`,
    nodesPrefix: `${base}/nodes/`,
    node: (node) => `${base}/nodes/${node}`,
    tailPrefix: `${base}/tail/`,
    tail: (node) => `${base}/tail/${node}`,
    watched: (watch) => `${base}/stage/watched/${watch}`,
  };
}

/**
 * A group of the job's own, below its home: where only so many targets may run at once, each takes one of its slots before
 * those of its task, so that the others don't stand in the queue; one that only tries takes no other.
 */
export const jobGroup = (home: string, { principal, id }: JobRef): string =>
  `${home}/.jobs/${principal}/${id}`;

/**
 * A piece of a log, for one reader; locked by the session of the node's agent, so it goes with that. Not below the job:
 * who watches the job would read all of it anew with each piece.
 */
export const logPieceKey = (
  { prefix, home, ref: { principal, id } }: LogPlace,
  { node, reader }: { readonly node: string; readonly reader: string },
): string => `${prefix}/${home}/.jobs/${principal}/.logs/${id}/${node}/${reader}`;

interface LogPlace {
  readonly prefix: string;
  readonly home: string;
  readonly ref: JobRef;
}

/** Random letters and digits; no other name is a reader's. */
const READER = /^[a-z0-9]{8,32}$/;

export const isReader = (name: string): boolean => READER.test(name);

/** Locked by the session of the node's agent. */
export const agentKey = (prefix: string, node: string): string => `${prefix}/.agents/${node}`;

/** The cursor of a trigger. */
export const triggerKey = (prefix: string, node: string, task: string): string =>
  `${triggersPrefix(prefix, node)}${task}`;

/** Of all triggers and hooks of a node; ends with a slash. */
export const triggersPrefix = (prefix: string, node: string): string => `${prefix}/.triggers/${node}/`;

/** The cursor of a hook. */
export const hookKey = (prefix: string, node: string, hook: string): string =>
  `${triggersPrefix(prefix, node)}.hook/${hook}`;

export const triggerRule = (prefix: string, node: string): string =>
  `key_prefix "${triggersPrefix(prefix, node)}" { policy = "write" }`;
