/**
 * Key names and records under `<prefix>/<group>/` (docs/protocol.md, "Keys"). Pure.
 * Records are small JSON documents with a `v` field; times are ISO 8601 in UTC, durations are milliseconds.
 */
import { RunlockError } from '../errors.ts';

const VERSION = 1;

/** How long a failed or vanished run keeps others out; a number is milliseconds. */
export type Hold = 'forever' | 'none' | number;

export type ClaimState = 'running' | 'held' | 'failed' | 'rebooting' | 'abandoned' | 'evicted';

/** Which process runs: enough to tell, on the same boot of the same host, whether it still does. */
export interface Runner {
  readonly pid: number;
  /** Start time of the process in clock ticks since boot (proc(5), stat field 22). */
  readonly startTime: string;
  readonly bootId: string;
}

/** `.slot/<i>/owner`: who may run in the slot. */
export interface Claim extends Runner {
  readonly node: string;
  readonly state: ClaimState;
  readonly run: string;
  /** When it came into its state. */
  readonly since: string;
  /** Base name only: arguments can be secrets. */
  readonly command: string;
  readonly hold: Hold;
  /** How often the run took its lock back: writing the same value again would not change the claim's index. */
  readonly returns?: number;
  /** Of the run that failed, when it ended with a code. */
  readonly exitCode?: number;
  /** When others may follow. Absent: never, or not known yet. */
  readonly heldUntil?: string;
  /** Who evicted the run. */
  readonly by?: string;
}

/** `.queue/<session>`: who waits. */
export interface Ticket {
  readonly node: string;
  readonly run: string;
  readonly since: string;
  readonly command: string;
  readonly pid: number;
}

/** `.node/<node>`: this node waits or runs in this group. */
export interface NodeMark extends Runner {
  readonly run: string;
  readonly since: string;
}

/** `.slot/<i>/lock`: the run that holds the session lock. */
export interface LockMark {
  readonly run: string;
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

export type Outcome = 'succeeded' | 'failed' | 'rebooting' | 'interrupted' | 'timed-out' | 'evicted' | 'lost';

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
}

export interface GroupKeys {
  readonly group: string;
  /** The prefix that all groups share, without a slash at its end. */
  readonly root: string;
  /** The Consul rights that a run in this group needs, as rules of an ACL policy. */
  readonly rule: string;
  /** Everything of this group and of the groups below it; ends with a slash. */
  readonly prefix: string;
  readonly queuePrefix: string;
  queue(session: string): string;
  node(node: string): string;
  readonly tail: string;
  readonly last: string;
  readonly slotPrefix: string;
  slot(slot: number): string;
  lock(slot: number): string;
  owner(slot: number): string;
  /** The group's own stop sign first, then its ancestors', the root's last. */
  readonly freezes: readonly string[];
  run(node: string): string;
}

/** The keys of `group` (`prod/web`) under `prefix` (`runlock`), both without slashes at their ends. */
export function groupKeys(prefix: string, group: string): GroupKeys {
  const base = `${prefix}/${group}`;
  const segments = group.split('/');
  const ancestors = segments.map((_, i) => [prefix, ...segments.slice(0, segments.length - i)].join('/'));
  const freezes = [...ancestors, prefix].map((path) => `${path}/.freeze`);
  return {
    group,
    root: prefix,
    rule: [
      `key_prefix "${base}/" { policy = "write" }`,
      ...freezes.slice(1).map((key) => `key "${key}" { policy = "write" }`),
    ].join(', '),
    prefix: `${base}/`,
    queuePrefix: `${base}/.queue/`,
    queue: (session) => `${base}/.queue/${session}`,
    node: (node) => `${base}/.node/${node}`,
    tail: `${base}/.tail`,
    last: `${base}/.last`,
    slotPrefix: `${base}/.slot/`,
    slot: (slot) => `${base}/.slot/${slot}/`,
    lock: (slot) => `${base}/.slot/${slot}/lock`,
    owner: (slot) => `${base}/.slot/${slot}/owner`,
    freezes,
    run: (node) => `${base}/.runs/${node}`,
  };
}

/** What a key below the prefix is; `other` is nobody's that this version knows. */
export type KeyKind =
  | { kind: 'ticket'; session: string }
  | { kind: 'node'; node: string }
  | { kind: 'tail' }
  | { kind: 'last' }
  | { kind: 'lock'; slot: number }
  | { kind: 'owner'; slot: number }
  | { kind: 'freeze' }
  | { kind: 'run'; node: string }
  | { kind: 'other' };

/** Splits a key below `prefix` into its group (`''` for the root) and its kind; undefined for a key elsewhere. */
export function parseKey(prefix: string, key: string): { group: string; key: KeyKind } | undefined {
  if (!key.startsWith(`${prefix}/`)) return undefined;
  const path = key.slice(prefix.length + 1);
  const dot = /(?:^|\/)\./.exec(path);
  if (!dot) return { group: path, key: { kind: 'other' } };
  const [name = '', ...rest] = path.slice(dot.index).replace(/^\//, '').split('/');
  return { group: path.slice(0, dot.index), key: keyKind(name, rest) };
}

function keyKind(name: string, rest: string[]): KeyKind {
  const [first, second, ...more] = rest;
  if (first === undefined) {
    if (name === '.tail') return { kind: 'tail' };
    if (name === '.last') return { kind: 'last' };
    if (name === '.freeze') return { kind: 'freeze' };
  } else if (second === undefined) {
    if (name === '.queue') return { kind: 'ticket', session: first };
    if (name === '.node') return { kind: 'node', node: first };
    if (name === '.runs') return { kind: 'run', node: first };
  } else if (name === '.slot' && more.length === 0 && /^(?:0|[1-9]\d{0,8})$/.test(first)) {
    if (second === 'lock') return { kind: 'lock', slot: Number(first) };
    if (second === 'owner') return { kind: 'owner', slot: Number(first) };
  }
  return { kind: 'other' };
}

/** Writes a record as the JSON document that is stored. */
export function encode(record: object): string {
  return JSON.stringify({ v: VERSION, ...record });
}

const SEGMENT = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/;

/** Whether `name` can be a node name or one segment of a group. */
export function isName(name: string): boolean {
  return SEGMENT.test(name) && !name.includes('..');
}

type Check = (value: unknown) => boolean;
const text: Check = (value) => typeof value === 'string';
const number: Check = (value) => typeof value === 'number' && Number.isFinite(value);
const natural: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
const name: Check = (value) => typeof value === 'string' && isName(value);
const time: Check = (value) => typeof value === 'string' && !Number.isNaN(Date.parse(value));
const oneOf =
  (...words: string[]): Check =>
  (value) =>
    typeof value === 'string' && words.includes(value);
const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);

type Shape<T> = { readonly [K in keyof Required<T>]: Check };

const runner: Shape<Runner> = { pid: natural, startTime: text, bootId: text };
const claimShape: Shape<Claim> = {
  ...runner,
  node: name,
  state: oneOf('running', 'held', 'failed', 'rebooting', 'abandoned', 'evicted'),
  run: text,
  since: time,
  command: text,
  hold: (value) => value === 'forever' || value === 'none' || (number(value) && (value as number) > 0),
  returns: optional(natural),
  exitCode: optional(number),
  heldUntil: optional(time),
  by: optional(text),
};
const ticketShape: Shape<Ticket> = { node: name, run: text, since: time, command: text, pid: natural };
const freezeShape: Shape<Freeze> = { by: text, reason: text, since: time, until: optional(time) };
const runShape: Shape<RunRecord> = {
  node: name,
  run: text,
  outcome: oneOf('succeeded', 'failed', 'rebooting', 'interrupted', 'timed-out', 'evicted', 'lost'),
  exitCode: optional(number),
  command: text,
  slot: natural,
  endedAt: time,
  waitedMs: number,
  ranMs: number,
};

/** A stored document, as Consul gives it back. */
export interface Stored {
  readonly key: string;
  readonly value: string;
}

/**
 * Reads a record; anything that is not one is an error that names the key, never a guess.
 * @throws RunlockError `incompatible`: written by a newer runlock, or by something else.
 */
function decode<T>(what: string, shape: Shape<T>, stored: Stored): T {
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

function unreadable(what: string, stored: Stored): RunlockError {
  return new RunlockError(
    'incompatible',
    `${stored.key}: not a ${what} that runlock wrote; look at it with 'consul kv get ${stored.key}', and delete it if no run needs it`,
  );
}

export const decodeClaim = (stored: Stored): Claim => decode('claim', claimShape, stored);
export const decodeTicket = (stored: Stored): Ticket => decode('ticket', ticketShape, stored);
export const decodeNodeMark = (stored: Stored): NodeMark =>
  decode<NodeMark>('node mark', { ...runner, run: text, since: time }, stored);
export const decodeLockMark = (stored: Stored): LockMark => decode<LockMark>('lock', { run: text }, stored);
export const decodeQueueMark = (stored: Stored): QueueMark =>
  decode<QueueMark>('queue mark', { session: text }, stored);
export const decodeFreeze = (stored: Stored): Freeze => decode('freeze', freezeShape, stored);
export const decodeRun = (stored: Stored): RunRecord => decode('run record', runShape, stored);
