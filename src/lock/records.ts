/**
 * The records that the keys hold (docs/protocol.md, "Keys"): small JSON documents with a `v` field. Pure.
 * Times are ISO 8601 in UTC, durations are milliseconds.
 */
import { RunlockError } from '../errors.ts';
import { isName } from '../text/words.ts';

const VERSION = 1;

/** How long a failed or vanished run keeps others out; a number is milliseconds. */
export type Hold = 'forever' | 'none' | number;

/** `interrupted`: a signal ended the run before its command had succeeded. */
export type ClaimState =
  'running' | 'held' | 'failed' | 'interrupted' | 'rebooting' | 'abandoned' | 'evicted';

/**
 * Identifies the process of a run, so that another process on the same boot of the same host can tell whether it is
 * alive.
 */
export interface Runner {
  readonly pid: number;
  /** Start time of the process in clock ticks since boot (proc(5), stat field 22). */
  readonly startTime: string;
  /** The boot, and the namespaces in which `pid` and `startTime` are valid. */
  readonly bootId: string;
  /** The user that the process runs as. */
  readonly uid?: number;
  /** The machine of the process (`machineOf`). Absent: it has no machine-id, or an older version wrote the record. */
  readonly machine?: string;
  /** The machine's host name, for people; also identifies the machine if there is no machine-id. */
  readonly host?: string;
}

/** What stays out of service: the instances of these services; with `node`, the whole node. */
export interface LeftOn {
  readonly services: readonly string[];
  readonly node?: true;
}

/** `.slot/<i>/owner`: who may run in the slot. */
export interface Claim extends Runner {
  readonly node: string;
  readonly state: ClaimState;
  readonly run: string;
  /** When the claim entered its current state. */
  readonly since: string;
  /** Base name only: arguments can be secrets. */
  readonly command: string;
  readonly hold: Hold;
  /** How often the run took its lock back: writing the same value again would not change the claim's index. */
  readonly returns?: number;
  /** The exit code of a failed run, if it had one. */
  readonly exitCode?: number;
  /** When others may follow. Absent: never, or not known yet. */
  readonly heldUntil?: string;
  /**
   * When a running claim was first seen without its lock, by the clock of the host that saw it. Removed when the run
   * takes its lock back.
   */
  readonly missingSince?: string;
  /** In a held claim: how long `acquire` waited for the slot. */
  readonly waitedMs?: number;
  /** Who evicted the run. */
  readonly by?: string;
  /** In the claim of a failed run: the command succeeded, but the node's services were not healthy afterwards. */
  readonly unhealthy?: true;
  /** What earlier runs of the node left in maintenance and no later run of this group has taken out of it. */
  readonly maintenance?: LeftOn;
  /** All groups of the run, if it has several: it has a claim or a ticket with the same run id in each. */
  readonly groups?: readonly string[];
  /**
   * The run that took the slot from nobody, or from another node. The node's later runs that take the claim back carry
   * it on, so states of `--during` stay until the claim ends. Absent: `run` itself.
   */
  readonly root?: string;
  /** Of a run under way: as in the ticket. */
  readonly publish?: readonly string[];
}

/** The run with which the node's hold on the slot began; unchanged until the claim goes, or another node has it. */
export const rootOf = ({ root, run }: Pick<Claim, 'root' | 'run'>): string => root ?? run;

/** The claim without what is only of a run under way. */
export function ended(claim: Claim): Claim {
  const rest: Claim & { publish?: readonly string[] } = { ...claim };
  delete rest.publish;
  return rest;
}

/** `.queue/<session>`: who waits. */
export interface Ticket {
  readonly node: string;
  readonly run: string;
  readonly since: string;
  readonly command: string;
  readonly pid: number;
  /** As in the claim. */
  readonly groups?: readonly string[];
  /**
   * The paths of the states that the run sets if it succeeds (`--publish`) or while it runs (`--during`). Absent: none.
   * Only people are told by it; no run decides anything by it.
   */
  readonly publish?: readonly string[];
}

/** Who took a waiting run out of the queue, and when. */
export interface Away {
  readonly by: string;
  readonly at: string;
}

/** `.node/<node>`: this node waits or runs in this group. */
export interface NodeMark extends Runner {
  readonly run: string;
  readonly since: string;
  /** An operator sent the run away, and the run has not read this yet. The mark then has no session. */
  readonly away?: Away;
  /** Of a run that waits for its node's own claim, without a ticket: as in the ticket. */
  readonly publish?: readonly string[];
}

/** `.slot/<i>/lock`: the run that holds the session lock. */
export interface LockMark {
  readonly run: string;
}

/** `.gate/.out/<node>/<run>`: what this run needs in maintenance. */
export interface OutMark extends LeftOn {
  /**
   * The groups in which the run has claims: the mark counts while one of them exists. None: set by hand, and ended by
   * hand.
   */
  readonly groups: readonly string[];
  /**
   * `leaving`: the run may be ending the maintenance now. `left`: the run no longer needs it, but left it on for
   * others.
   */
  readonly state?: 'leaving' | 'left';
}

/** `.tail` and `.last`: a session's place in the queue. */
export interface QueueMark {
  readonly session: string;
}

/** `.freeze`: an operator's stop sign. */
export interface Freeze {
  readonly by: string;
  readonly reason: string;
  readonly since: string;
  readonly until?: string;
}

/** `unhealthy`: the command succeeded, but the node's services were not healthy afterwards. */
export type Outcome =
  'succeeded' | 'failed' | 'unhealthy' | 'rebooting' | 'interrupted' | 'timed-out' | 'evicted' | 'lost';

/** `.runs/<node>`: the node's last run. */
export interface RunRecord {
  readonly node: string;
  readonly run: string;
  readonly outcome: Outcome;
  readonly exitCode?: number;
  readonly command: string;
  readonly slot: number;
  readonly endedAt: string;
  readonly waitedMs: number;
  readonly ranMs: number;
  /** In the record of an unsuccessful run: when the node's last successful run ended. Absent: none is known. */
  readonly lastGoodAt?: string;
  /**
   * The index of the run's claim when the run last knew it as its own. Increases from each run of a node to the next.
   */
  readonly claimIndex?: number;
  /** The tasks whose starts by a change led to this run, each `task@node` (`Causes`). Absent: none. */
  readonly cause?: readonly string[];
  readonly depth?: number;
  /** Of a run of a task. Absent: of another command, of a try, or an older version wrote the record. */
  readonly task?: TaskRun & {
    /** An index of its claim from before its command began. */
    readonly from: number;
  };
}

/** What a run did, so that requests for the same can be told from others. */
export interface TaskRun {
  /** The same for runs of the same task with the same parameters, and for no others. */
  readonly digest: string;
  /** `principal/id`. Absent: it was of no job. */
  readonly job?: string;
  /** A change has started it. */
  readonly triggered?: true;
}

/** When the node's last successful run ended; undefined: none is known. */
export function lastGoodOf({ outcome, endedAt, lastGoodAt }: RunRecord): string | undefined {
  return outcome === 'succeeded' ? endedAt : lastGoodAt;
}

/** How long a freeze still lasts, in milliseconds; zero or less: it has ended. */
export function leftOf({ until }: Freeze, nowMs: number): number {
  return until === undefined ? Infinity : Date.parse(until) - nowMs;
}

/** The first of these keys (a group's own, then its ancestors') whose freeze has not ended. */
export function freezeInForce(
  keys: readonly string[],
  read: (key: string) => Freeze | undefined,
  nowMs: number,
): { readonly key: string; readonly freeze: Freeze } | undefined {
  for (const key of keys) {
    const freeze = read(key);
    if (freeze && leftOf(freeze, nowMs) > 0) return { key, freeze };
  }
  return undefined;
}

/** Merges two lists of what stays out of service; services are sorted by name. */
export function joinLeft(a: LeftOn | undefined, b: LeftOn | undefined): LeftOn | undefined {
  if (!a || !b) return a ?? b;
  const services = [...new Set([...a.services, ...b.services])].sort();
  return { services, ...((a.node ?? b.node) && { node: true }) };
}

/** Writes a record as the JSON document that is stored. */
export function encode(record: object): string {
  return JSON.stringify({ v: VERSION, ...record });
}

/** Writes `unhealthy` as `failed` with an extra field, because older versions of runlock know only `failed`. */
export function encodeRun(record: RunRecord): string {
  return encode(record.outcome === 'unhealthy' ? { ...record, outcome: 'failed', unhealthy: true } : record);
}

type Check = (value: unknown) => boolean;
const text: Check = (value) => typeof value === 'string';
const texts: Check = (value) => Array.isArray(value) && value.every(text);
const number: Check = (value) => typeof value === 'number' && Number.isFinite(value);
const natural: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
const name: Check = (value) => typeof value === 'string' && isName(value);
const paths: Check = (value) =>
  Array.isArray(value) && value.every((each) => typeof each === 'string' && each.split('/').every(isName));
/**
 * Limits durations so that the sum of a stored time and a duration is still a valid `Date` (at most the year
 * 275,760).
 */
const LONGEST_MS = 100 * 365.25 * 86_400_000;
const duration: Check = (value) => number(value) && (value as number) >= 0 && (value as number) <= LONGEST_MS;
const [FIRST_MS, LAST_MS] = [Date.parse('0001-01-01T00:00:00Z'), Date.parse('9999-01-01T00:00:00Z')];
const time: Check = (value) => {
  const ms = typeof value === 'string' ? Date.parse(value) : NaN;
  return ms >= FIRST_MS && ms < LAST_MS;
};
/** An exit code: from wait(2), or 128 plus the signal. */
const code: Check = (value) => natural(value) && (value as number) <= 255;
const oneOf =
  (...words: string[]): Check =>
  (value) =>
    typeof value === 'string' && words.includes(value);
const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);

const taskRun: Check = (value) => {
  const { digest, from, job, triggered } = (value ?? {}) as Partial<NonNullable<RunRecord['task']>>;
  return (
    text(digest) &&
    natural(from) &&
    optional(text)(job) &&
    (triggered === undefined || (triggered as unknown) === true)
  );
};

const leftOn: Check = (value) => {
  const { services, node } = (value ?? {}) as Partial<LeftOn>;
  return (
    Array.isArray(services) && services.every(text) && (node === undefined || (node as unknown) === true)
  );
};

const away: Check = (value) => {
  const { by, at } = (value ?? {}) as Partial<Away>;
  return text(by) && time(at);
};

type Shape<T> = { readonly [K in keyof Required<T>]: Check };

const runner: Shape<Runner> = {
  pid: natural,
  startTime: text,
  bootId: text,
  uid: optional(natural),
  machine: optional(text),
  host: optional(text),
};
const claimShape: Shape<Claim> = {
  ...runner,
  node: name,
  state: oneOf('running', 'held', 'failed', 'interrupted', 'rebooting', 'abandoned', 'evicted'),
  run: text,
  since: time,
  command: text,
  hold: (value) => value === 'forever' || value === 'none' || (duration(value) && (value as number) > 0),
  returns: optional(natural),
  exitCode: optional(code),
  heldUntil: optional(time),
  missingSince: optional(time),
  waitedMs: optional(duration),
  by: optional(text),
  unhealthy: optional((value) => value === true),
  maintenance: optional(leftOn),
  groups: optional(paths),
  root: optional(text),
  publish: optional(paths),
};
const ticketShape: Shape<Ticket> = {
  node: name,
  run: text,
  since: time,
  command: text,
  pid: natural,
  groups: optional(paths),
  publish: optional(paths),
};
const nodeShape: Shape<NodeMark> = {
  ...runner,
  run: text,
  since: time,
  away: optional(away),
  publish: optional(paths),
};
const freezeShape: Shape<Freeze> = { by: text, reason: text, since: time, until: optional(time) };
const outShape: Shape<OutMark> = {
  services: (value) => Array.isArray(value) && value.every(text),
  node: optional((value) => value === true),
  groups: (value) => paths(value),
  state: optional(oneOf('leaving', 'left')),
};
type StoredRun = RunRecord & { readonly unhealthy?: true };
const runShape: Shape<StoredRun> = {
  node: name,
  run: text,
  outcome: oneOf('succeeded', 'failed', 'rebooting', 'interrupted', 'timed-out', 'evicted', 'lost'),
  exitCode: optional(code),
  command: text,
  slot: natural,
  endedAt: time,
  waitedMs: duration,
  ranMs: duration,
  lastGoodAt: optional(time),
  claimIndex: optional(natural),
  cause: optional(texts),
  depth: optional(natural),
  task: optional(taskRun),
  unhealthy: optional((value) => value === true),
};

/** A stored document, as Consul gives it back. */
export interface Stored {
  readonly key: string;
  readonly value: string;
}

/**
 * Reads a record. A value that is not a valid record is an error that names the key; nothing is guessed. Of `stored`,
 * `remove` says how to get rid of one that runlock did not write.
 * @throws RunlockError `incompatible`: written by a newer runlock, or by something else.
 */
function decode<T>(what: string, shape: Shape<T>, stored: Stored & { readonly remove?: string }): T {
  const parsed = parseJson(stored.value);
  if (typeof parsed !== 'object' || parsed === null || !('v' in parsed)) throw unreadable(what, stored);
  if (typeof parsed.v === 'number' && parsed.v > VERSION) {
    throw new RunlockError(
      'incompatible',
      `${stored.key}: this ${what} was written by a newer runlock (format ${parsed.v}, this one reads ${VERSION}); upgrade runlock here`,
    );
  }
  if (parsed.v !== VERSION) throw unreadable(what, stored);
  const record = parsed as Record<string, unknown>;
  for (const [field, check] of Object.entries<Check>(shape)) {
    if (!check(record[field])) throw unreadable(what, stored);
  }
  return record as T;
}

function parseJson(value: string): unknown {
  try {
    return JSON.parse(value);
  } catch {
    return undefined;
  }
}

function unreadable(what: string, { key, remove }: Stored & { readonly remove?: string }): RunlockError {
  const next = remove ?? 'delete the key if no run needs it';
  return new RunlockError(
    'incompatible',
    `${key}: not a ${what} that runlock wrote; check the value with 'consul kv get ${key}', and ${next}`,
  );
}

export const decodeClaim = (stored: Stored): Claim => decode('claim', claimShape, stored);
export const decodeTicket = (stored: Stored): Ticket => decode('ticket', ticketShape, stored);
export const decodeNodeMark = (stored: Stored): NodeMark => decode<NodeMark>('node mark', nodeShape, stored);
export const decodeLockMark = (stored: Stored): LockMark => decode<LockMark>('lock', { run: text }, stored);
export const decodeQueueMark = (stored: Stored): QueueMark =>
  decode<QueueMark>('queue mark', { session: text }, stored);
/**
 * As `decodeQueueMark`, for callers that can work without the mark. Undefined: the value is not a mark that runlock
 * wrote.
 * @throws RunlockError `incompatible`: written by a newer runlock.
 */
export function readQueueMark(stored: Stored): QueueMark | undefined {
  try {
    return decodeQueueMark(stored);
  } catch (error) {
    const { v } = (parseJson(stored.value) ?? {}) as { v?: unknown };
    if (typeof v === 'number' && v > VERSION) throw error;
    return undefined;
  }
}
export const decodeOutMark = (stored: Stored): OutMark => decode('mark of maintenance', outShape, stored);
export const decodeFreeze = (stored: Stored): Freeze => decode('freeze', freezeShape, stored);
export function decodeRun(stored: Stored): RunRecord {
  const { unhealthy, ...record } = decode('run record', runShape, stored);
  return unhealthy ? { ...record, outcome: 'unhealthy' } : record;
}

/** For other folders, to read their own records. */
export {
  decode,
  duration as isDuration,
  code as isExitCode,
  natural as isNatural,
  name as isNodeName,
  oneOf,
  optional,
  text as isText,
  time as isTime,
};
export type { Check, Shape };
