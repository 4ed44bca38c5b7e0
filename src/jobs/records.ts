/** Reads and writes what the keys of requests, jobs and agents hold (src/jobs/documents.ts). Pure. */
import {
  decode,
  encode,
  isDuration,
  isExitCode,
  isNatural,
  isNodeName,
  isText,
  isTime,
  oneOf,
  optional,
} from '../lock/records.ts';
import type { Check, Shape, Stored } from '../lock/records.ts';
import { isName } from '../text/words.ts';
import { FINAL_STATES, MOST_TARGETS, OPEN_STATES, PIECE_BYTES } from './documents.ts';
import type {
  AgentDocument,
  AgentFault,
  AgentTask,
  FinalState,
  LogPiece,
  LogRequest,
  Pointer,
  Selection,
  Spec,
  Stage,
  Tail,
  Tally,
  TargetDocument,
  Targets,
  Watching,
} from './documents.ts';
import { isJobId } from './keys.ts';

/** Longest document that is read, in characters: what is longer nobody's runlock wrote. Only `.agents/` and logs have more. */
const LONGEST = 65_536;
const LONGEST_PIECE = Math.ceil(PIECE_BYTES / 3) * 4;
/** Stages of a job. */
export const MOST_STAGES = 100;
/** Lists of targets of a job: 60,000 targets. */
export const MOST_CHUNKS = 1_000;
/** Targets of a job that may run at once by its own limit. */
export const MOST_RUNNING = 100_000;
/** Longest text for people, in characters; the rest is cut off. */
const LONGEST_WORD = 1_000;
/** Longest last line of output, in characters. */
const LONGEST_LINE = 200;

const isTrue: Check = (value) => value === true;
const isWord: Check = (value) => typeof value === 'string' && value !== '' && value.length <= 256;
const listOf =
  (check: Check, most = Infinity): Check =>
  (value) =>
    Array.isArray(value) && value.length <= most && value.every(check);
const isPath: Check = (value) => typeof value === 'string' && value.split('/').every(isName);
/** Of at most so many that their sums are exact. */
const isCount: Check = (value) => isNatural(value) && (value as number) <= 1_000_000;
const isParams: Check = (value) =>
  isObject(value) &&
  Object.entries(value).every(([name, text]) => /^[a-z][a-z0-9_]*$/.test(name) && isText(text));
const isCounts: Check = (value) =>
  isObject(value) &&
  Object.entries(value).every(([name, count]) => oneOf(...FINAL_STATES)(name) && isCount(count));

const isObject = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const has =
  <T>(shape: Shape<T>): Check =>
  (value) =>
    isObject(value) &&
    Object.entries<Check>(shape).every(([field, check]) => check((value as Record<string, unknown>)[field]));

const isChunk: Check = (value) => isNatural(value) && (value as number) < MOST_CHUNKS;

/** As many slots as a group can have. */
const isSlots: Check = (value) =>
  isNatural(value) && (value as number) >= 1 && (value as number) <= MOST_RUNNING;

const isTexts: Check = (value) => isObject(value) && Object.values(value).every(isText);
const isSelection = has<Selection>({
  named: optional(has<NonNullable<Selection['named']>>({ count: isCount, digest: isWord })),
  service: optional(isText),
  tags: optional(listOf(isText)),
  meta: optional(isTexts),
  filter: optional(isText),
  group: optional(isPath),
  job: optional(isText),
  states: optional(listOf(isText)),
});

const specShape: Shape<Spec> = {
  nonce: isWord,
  task: isNodeName,
  params: isParams,
  home: isPath,
  stages: (value) => listOf(isCount, MOST_STAGES)(value) && (value as unknown[]).length > 0,
  digest: isWord,
  chunks: (value) => isNatural(value) && (value as number) <= MOST_CHUNKS,
  filled: isNatural,
  maxFailures: isCount,
  offline: oneOf('wait', 'skip', 'fail'),
  pauseMs: isDuration,
  splayMs: optional(isDuration),
  maxRunning: optional(isSlots),
  selection: optional(isSelection),
  canary: optional(isText),
  steps: optional(listOf(isText, MOST_STAGES)),
  until: isTime,
  timeoutMs: optional(isDuration),
  noop: optional(isTrue),
  chain: optional(listOf(isText)),
  of: optional((value) => typeof value === 'string' && isJobId(value)),
  reason: optional(isText),
  by: isText,
  at: isTime,
};

const isTarget: Check = (value) =>
  Array.isArray(value) &&
  value.length === 2 &&
  isNodeName(value[0]) &&
  (value[1] === -1 || (isNatural(value[1]) && (value[1] as number) < MOST_STAGES));

const targetsShape: Shape<Targets> = { targets: listOf(isTarget, MOST_TARGETS) };

type StageOf<K extends Stage['kind']> = Extract<Stage, { kind: K }>;
const common = { rev: isNatural };
const stageShapes: { readonly [K in Stage['kind']]: Shape<StageOf<K>> } = {
  fill: { ...common, kind: oneOf('fill') },
  open: {
    ...common,
    kind: oneOf('open'),
    stage: (value) => isNatural(value) && (value as number) < MOST_STAGES,
    since: isTime,
    notBefore: optional(isTime),
  },
  stopped: {
    ...common,
    kind: oneOf('stopped'),
    why: oneOf('failures', 'unproven', 'cancelled', 'expired', 'gone'),
    by: optional(isText),
    reason: optional(isText),
    at: isTime,
    kill: optional(isTrue),
  },
  done: { ...common, kind: oneOf('done'), at: isTime },
};

const isStageTally = has<Tally['stages'][number]>({ final: isCount, good: isCount });
const tallyShape: Shape<Tally> = {
  rev: isNatural,
  stages: listOf(isStageTally, MOST_STAGES),
  states: isCounts,
};

const targetShape: Shape<TargetDocument> = {
  rev: isNatural,
  state: oneOf(...FINAL_STATES, ...OPEN_STATES),
  run: optional(isWord),
  bootId: optional(isText),
  served: optional(isTrue),
  acceptedAt: optional(isTime),
  startedAt: optional(isTime),
  endedAt: optional(isTime),
  exitCode: optional(isExitCode),
  holds: optional(isTrue),
  why: optional(isText),
  lastLine: optional(isText),
  late: optional(isText),
};

const isTask = has<AgentTask>({
  name: isNodeName,
  description: optional(isText),
  groups: listOf(isPath),
  allow: listOf(isNodeName),
  params: listOf(isText),
  on: listOf(isText),
  when: listOf(isText),
  publish: listOf(isText),
  slots: optional(isNatural),
  keptSlots: optional(isNatural),
  noop: optional(isTrue),
  services: optional(listOf(isText)),
});
const agentShape: Shape<AgentDocument> = {
  node: isNodeName,
  version: isText,
  bootId: isText,
  host: isText,
  machine: optional(isText),
  pid: isNatural,
  startTime: optional(isText),
  since: isTime,
  noRequests: optional(isText),
  pausedSince: optional(isTime),
  tasks: listOf(isTask),
  faults: optional(listOf(has<AgentFault>({ file: isText, why: isText }))),
  moreFaults: optional(isNatural),
};

/** What runlock's own documents never look like is unreadable, as text that is no JSON is. */
const REFUSED = '';

/**
 * What to do about a key that holds something else. A target that is removed is asked again, by its node's own word of what
 * it has started; a job can't go on without its other keys.
 */
function removalOf(key: string): string {
  const [, job] = /^(.*\/\.jobs\/[^/]+\/[^/]+\/)(?:stage|tally)(?:\/|$)/.exec(key) ?? [];
  if (job !== undefined) return `remove the job with 'consul kv delete -recurse ${job}'`;
  const [, requests, id] = /^(.*\/\.requests\/[^/]+\/)targets\/([^/]+)\//.exec(key) ?? [];
  if (requests !== undefined) return `remove the request with 'consul kv delete ${requests}spec/${id}'`;
  return `remove it with 'consul kv delete ${key}'`;
}

/** Only the fields that are known: another's may be of any depth, and would be written again. */
function read<T>(what: string, shape: Shape<T>, stored: Stored): T {
  const record = decode(what, shape, { ...stored, remove: removalOf(stored.key) });
  const known = Object.keys(shape) as (keyof T)[];
  return Object.fromEntries(
    known.filter((field) => record[field] !== undefined).map((field) => [field, record[field]]),
  ) as T;
}

const bounded = (stored: Stored): Stored =>
  stored.value.length <= LONGEST ? stored : { key: stored.key, value: REFUSED };

/** The second check is of fields that must fit each other. */
function readFitting<T>(what: string, shape: Shape<T>, fits: (record: T) => boolean) {
  return (stored: Stored): T => {
    const record = read(what, shape, bounded(stored));
    return fits(record) ? record : read(what, shape, { key: stored.key, value: REFUSED });
  };
}

// Each throws RunlockError `incompatible`, which names the key: written by a newer runlock, or by something else.

export const decodeSpec: (stored: Stored) => Spec = readFitting('request', specShape, isConsistent);
export const decodeTargets: (stored: Stored) => Targets = readFitting(
  'list of targets',
  targetsShape,
  ({ targets }) => new Set(targets.map(([node]) => node)).size === targets.length,
);
export const decodePointer = (stored: Stored): Pointer =>
  read<Pointer>('pointer to a request', { nonce: isWord, chunk: isChunk }, bounded(stored));
export const decodeTally: (stored: Stored) => Tally = readFitting(
  'tally of a job',
  tallyShape,
  ({ stages }) => stages.every(({ final, good }) => good <= final),
);
export const decodeAgent = (stored: Stored): AgentDocument =>
  read('description of an agent', agentShape, stored);

export function decodeStage(stored: Stored): Stage {
  const { kind } = read<Pick<Stage, 'kind'>>('stage of a job', { kind: isStageKind }, bounded(stored));
  return read<Stage>('stage of a job', stageShapes[kind], stored);
}

const isStageKind: Check = (value) => typeof value === 'string' && Object.hasOwn(stageShapes, value);

/** Texts that are too long for people are cut. */
export function decodeTarget(stored: Stored): TargetDocument {
  const record = read('target of a job', targetShape, bounded(stored));
  return {
    ...record,
    ...(record.why !== undefined && { why: record.why.slice(0, LONGEST_WORD) }),
    ...(record.lastLine !== undefined && { lastLine: record.lastLine.slice(0, LONGEST_LINE) }),
    ...(record.late !== undefined && { late: record.late.slice(0, LONGEST_WORD) }),
  };
}

/** A line that is too long is cut. */
export function decodeTail(stored: Stored): Tail {
  const { line } = read<Tail>('last line of a run', { line: isText }, bounded(stored));
  return { line: line.slice(0, LONGEST_LINE) };
}

export const decodeWatching = (stored: Stored): Watching =>
  read<Watching>('mark of who watches a job', { until: isTime }, bounded(stored));

const logRequestShape: Shape<LogRequest> = {
  id: (value) => typeof value === 'string' && isJobId(value),
  nonce: isWord,
  home: isPath,
  chunk: isChunk,
  piece: isNatural,
  from: optional(isNatural),
  lines: optional(isNatural),
  follow: optional(isTrue),
};

export const decodeLogRequest = (stored: Stored): LogRequest =>
  read('request for a log', logRequestShape, bounded(stored));

type PieceOf<K extends LogPiece['kind']> = Extract<LogPiece, { kind: K }>;
const pieceShapes: { readonly [K in LogPiece['kind']]: Shape<PieceOf<K>> } = {
  bytes: {
    piece: isNatural,
    kind: oneOf('bytes'),
    from: isNatural,
    bytes: (value) => typeof value === 'string' && value.length <= LONGEST_PIECE && isBase64(value),
    size: isNatural,
    ended: optional(isTrue),
  },
  refused: { piece: isNatural, kind: oneOf('refused'), why: isText },
};

const isBase64 = (text: string) => /^[A-Za-z0-9+/]*={0,2}$/.test(text);

export function decodeLogPiece(stored: Stored): LogPiece {
  const isKind: Check = (value) => typeof value === 'string' && Object.hasOwn(pieceShapes, value);
  const { kind } = decode<Pick<LogPiece, 'kind'>>('piece of a log', { kind: isKind }, stored);
  return read<LogPiece>('piece of a log', pieceShapes[kind], stored);
}

function isConsistent({ chunks, filled }: Spec): boolean {
  return filled <= chunks;
}

export const encodeSpec = (spec: Spec): string => encode(spec);
export const encodeTargets = (targets: Targets): string => encode(targets);
export const encodePointer = (pointer: Pointer): string => encode(pointer);
export const encodeStage = (stage: Stage): string => encode(stage);
export const encodeTally = (tally: Tally): string => encode(tally);
export const encodeTarget = (target: TargetDocument): string => encode(target);
export const encodeTail = (tail: Tail): string => encode(tail);
export const encodeWatching = (watching: Watching): string => encode(watching);
export const encodeLogRequest = (request: LogRequest): string => encode(request);
export const encodeLogPiece = (piece: LogPiece): string => encode(piece);
export const encodeAgent = (agent: AgentDocument): string => encode(agent);

/** Whether this is a state that never changes. */
export const isFinal = (state: string): state is FinalState =>
  (FINAL_STATES as readonly string[]).includes(state);
