/**
 * Answers who reads logs of this node through Consul: a piece for each that was asked for, so a reader that is slow or
 * gone gets no more (docs/protocol.md, "Logs").
 */
import { isTransient } from '../consul/consul.ts';
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { send } from '../consul/txn.ts';
import { reasonOf } from '../errors.ts';
import { PIECE_BYTES } from '../jobs/documents.ts';
import type { LogPiece, LogRequest } from '../jobs/documents.ts';
import { logPieceKey } from '../jobs/keys.ts';
import { answerPiece, dropReader, leaveLog } from '../jobs/logs.ts';
import { jobWriteRule, lookAt, requestRule } from '../jobs/read.ts';
import { decodeLogRequest } from '../jobs/records.ts';
import { isEnded, shownState } from '../jobs/stage.ts';
import type { SeenTarget } from '../jobs/transactions.ts';
import type { Clock } from '../platform/deps.ts';
import type { SeenReader } from './inbox.ts';
import type { TaskFiles } from './known.ts';
import { readLog } from './log-file.ts';
import { changing } from './watched.ts';
import type { Watched } from './watched.ts';
import type { AgentWays } from './ways.ts';

/** Of one principal at once; others wait until one of them leaves. */
const MOST_READERS = 8;
/** Of all readers of the node together: ten a second. */
const GAP_MS = 100;
const MOST_BYTES = 64 * 1_048_576;
/** How long who follows a log waits for an answer that has nothing new. */
const HOLD_MS = 10_000;
/** A log that is followed is looked at so often. */
const LOOK_MS = 500;
/** A reader that asks for nothing for so long is gone. */
const STALE_MS = 30_000;
const REQUEST_MS = 5_000;
const RETRY: Growth = { shortestMs: 500, longestMs: 10_000 };

/** Resolves when the next piece may be sent. */
export type Pace = (signal: AbortSignal) => Promise<void>;

export function paced(clock: Pick<Clock, 'monotonicMs' | 'sleep'>, gapMs = GAP_MS): Pace {
  let nextMs = -Infinity;
  return async (signal) => {
    const leftMs = nextMs - clock.monotonicMs();
    nextMs = Math.max(nextMs, clock.monotonicMs()) + gapMs;
    if (leftMs > 0) await clock.sleep(leftMs, { signal });
  };
}

export interface ReadersOf {
  readonly ways: AgentWays;
  readonly principal: string;
  readonly pace: Pace;
  /** Bytes in base64 for one reader; by default four times what is kept of a run's output. */
  readonly mostBytes?: number;
}

export interface LogReaders {
  /** All who read logs now. */
  readonly hear: (readers: readonly SeenReader[]) => void;
  /** Resolves once nobody is answered any more. Never rejects. */
  ended(): Promise<unknown>;
}

/** Until `signal` aborts. */
export function logReaders(of: ReadersOf, signal: AbortSignal): LogReaders {
  /** Undefined: it has left. */
  const open = new Map<string, ReturnType<typeof changing<SeenReader | undefined>>>();
  const serving = new Set<Promise<void>>();
  return {
    hear: (readers) => {
      const named = new Set(readers.map(({ reader }) => reader));
      for (const [reader, known] of open) if (!named.has(reader)) known.set(undefined);
      for (const each of readers.slice(0, MOST_READERS)) {
        const known = open.get(each.reader);
        if (known) {
          if (known.look().value?.index !== each.index) known.set(each);
          continue;
        }
        const added = changing<SeenReader | undefined>(each);
        open.set(each.reader, added);
        const served = serve(of, added, signal)
          .catch(() => undefined)
          .finally(() => {
            open.delete(each.reader);
            serving.delete(served);
          });
        serving.add(served);
      }
    },
    ended: () => Promise.all(serving),
  };
}

/** Only saves reads. */
interface Memory {
  target: SeenTarget | undefined;
  /** The piece that was answered last. */
  answered: number;
  bytes: number;
  /** Where the answers are. */
  key: string | undefined;
}

/** Until it has left. Tries again after faults. Rejects with the signal's reason alone. */
async function serve(
  of: ReadersOf,
  reader: Watched<SeenReader | undefined>,
  signal: AbortSignal,
): Promise<void> {
  const { clock, random } = of.ways.deps;
  const memory: Memory = { target: undefined, answered: -1, bytes: 0, key: undefined };
  for (let failures = 0; ;) {
    try {
      if (await step(of, reader, { memory, signal })) return;
      failures = 0;
    } catch (error) {
      signal.throwIfAborted();
      memory.target = undefined;
      // What the reader names can't be read, now or later: a group that is not this node's, a document of a newer runlock.
      if (!isTransient(error)) await forsake(of, reader, { memory, signal }).catch(() => undefined);
      await clock.sleep(growingMs(failures++, RETRY, random), { signal });
    }
  }
}

/** Nobody is answered here. */
async function forsake(
  { ways: { consul, prefix } }: ReadersOf,
  reader: Watched<SeenReader | undefined>,
  { memory, signal }: Serving,
): Promise<boolean> {
  const seen = reader.look().value;
  const limits = { signal, timeoutMs: REQUEST_MS, rule: requestRule(prefix) };
  return !seen || (await send(consul, dropReader(seen, memory.key), limits)).kind === 'done';
}

interface Serving {
  readonly memory: Memory;
  readonly signal: AbortSignal;
}

/** True: it has left, or was given up. */
async function step(
  of: ReadersOf,
  reader: Watched<SeenReader | undefined>,
  { memory, signal }: Serving,
): Promise<boolean> {
  const { ways } = of;
  const limits = { signal, timeoutMs: REQUEST_MS, rule: requestRule(ways.prefix) };
  const { value: seen, change } = reader.look();
  if (!seen) {
    if (memory.key !== undefined) await send(ways.consul, leaveLog(memory.key), limits);
    return true;
  }
  const giveUp = () => forsake(of, reader, { memory, signal });
  const request = readRequest(seen);
  if (!request) return giveUp();
  if (request.piece === memory.answered)
    return (await isHeard(of, reader, { change, signal })) ? false : giveUp();
  const answer = await answerTo(of, request, { memory, signal });
  if (!answer) return giveUp();
  const { target, piece } = answer;
  const document = {
    key: target.keys.node(ways.node),
    index: target.document?.index ?? 0,
  };
  const ref = { principal: of.principal, id: request.id };
  const key = logPieceKey({ prefix: ways.prefix, home: request.home, ref }, { node: ways.node, ...seen });
  await of.pace(signal);
  const steps = answerPiece(document, seen, { key, piece, session: ways.presence.session });
  memory.key = key;
  const result = await send(ways.consul, steps, {
    ...limits,
    rule: jobWriteRule(ways.prefix, request.home, of.principal),
  });
  if (result.kind === 'done') {
    memory.answered = request.piece;
    memory.bytes += piece.kind === 'bytes' ? piece.bytes.length : 0;
  } else {
    memory.target = undefined;
    // Its inbox tells soon that it has left, or what it wants by now.
    if (result.obstacle === 'reader') await isHeard(of, reader, { change, signal });
  }
  return false;
}

/** Undefined: nobody's runlock wrote it. */
function readRequest(seen: SeenReader): LogRequest | undefined {
  try {
    return decodeLogRequest(seen);
  } catch {
    return undefined;
  }
}

/** Whether the reader asks for something else, or leaves, before it counts as gone. */
async function isHeard(
  { ways: { deps } }: ReadersOf,
  reader: Watched<unknown>,
  { change, signal }: { readonly change: number; readonly signal: AbortSignal },
): Promise<boolean> {
  const over = new AbortController();
  const either = { signal: AbortSignal.any([signal, over.signal]) };
  const waits = [
    reader.past(change, either).then(() => true),
    deps.clock.sleep(STALE_MS, either).then(() => false),
  ];
  try {
    return await Promise.race(waits);
  } finally {
    over.abort();
    await Promise.allSettled(waits);
  }
}

interface LogAnswer {
  readonly target: SeenTarget;
  readonly piece: LogPiece;
}

/** Undefined: there is no such job, or it does not name this node. */
async function answerTo(
  of: ReadersOf,
  request: LogRequest,
  { memory, signal }: Serving,
): Promise<LogAnswer | undefined> {
  const { deps, runs, known } = of.ways;
  const { mostBytes = MOST_BYTES } = of;
  const ref = { principal: of.principal, id: request.id };
  const startedMs = deps.clock.monotonicMs();
  for (;;) {
    const target = (memory.target ??= await look(of, request, signal));
    if (!target) return undefined;
    const refused = (why: string): LogAnswer => ({
      target,
      piece: { kind: 'refused', piece: request.piece, why },
    });
    const why = whyNoLog(target, { request, principal: of.principal }, known.look().value.files);
    if (why !== undefined) return refused(why);
    if (memory.bytes > mostBytes) return refused(tooMuch(mostBytes));
    // Before the file: what a run writes last is there when it is over.
    const isOver = !runs.isAlive(ref);
    const file = runs.logOf(ref, target.spec.value.task);
    const slice = await readSlice(file, request, { isOver, uid: of.ways.posting.uid });
    if (typeof slice === 'string') return refused(slice);
    const answer = (ended: boolean): LogAnswer => ({
      target,
      piece: {
        kind: 'bytes',
        piece: request.piece,
        from: slice?.from ?? request.from ?? 0,
        bytes: slice?.bytes.toString('base64') ?? '',
        size: slice?.size ?? 0,
        ...(ended && { ended }),
      },
    });
    const isAtEnd = !slice || slice.from + slice.bytes.length >= slice.size;
    if (!request.follow && !slice) return refused(`${file} is not there${isOver ? GONE : ' yet'}`);
    if (!request.follow) return answer(isAtEnd);
    if (slice && slice.bytes.length > 0) return answer(false);
    if (isOver) {
      memory.target = await look(of, request, signal);
      if (memory.target && isTargetOver(memory.target))
        return slice ? answer(true) : refused(`${file} is not there${GONE}`);
    }
    // The first answer says that somebody is there.
    const isLate = deps.clock.monotonicMs() - startedMs >= HOLD_MS;
    if (request.piece === 0 || isLate) return answer(false);
    await deps.clock.sleep(LOOK_MS, { signal });
  }
}

const GONE = ': the run wrote none, or it was removed as too old';
const tooMuch = (most: number) =>
  `this reader has got ${most.toLocaleString('en-US')} bytes, and there is more; read the rest on the node`;

/** A text: why it can't be read. */
async function readSlice(
  file: string,
  { from, lines }: LogRequest,
  { isOver, uid }: { readonly isOver: boolean; readonly uid: number },
) {
  try {
    return await readLog(file, { from, lines, most: PIECE_BYTES, isOver, uid });
  } catch (error) {
    return `the agent can't read ${file}: ${reasonOf(error)}`;
  }
}

const isTargetOver = ({ document, stage, targetStage }: SeenTarget): boolean =>
  isEnded(shownState(document?.value, targetStage, stage.value));

async function look(
  { ways, principal }: ReadersOf,
  { id, home, chunk }: LogRequest,
  signal: AbortSignal,
): Promise<SeenTarget | undefined> {
  const { consul, prefix, node } = ways;
  const reader = { consul, prefix, ref: { principal, id } };
  const found = await lookAt(reader, { node, known: { home, chunk } }, { signal });
  // A request that names another group than the job's is answered nowhere.
  return found.kind === 'target' && found.known.home === home && found.target.document
    ? found.target
    : undefined;
}

interface Asking {
  readonly request: LogRequest;
  readonly principal: string;
}

/** Why this node's files, or the job, don't allow it. Pure. */
export function whyNoLog(
  { spec }: Pick<SeenTarget, 'spec'>,
  { request, principal }: Asking,
  { tasks }: TaskFiles,
): string | undefined {
  const { task: name, nonce } = spec.value;
  if (nonce !== request.nonce) return 'another job has this id by now';
  const found = tasks.find(({ task }) => task.name === name);
  if (!found)
    return `this node has no task ${name} any more, so its files no longer say who may read the output`;
  if (!found.shown.allow.includes(principal)) return `task ${name} does not allow ${principal} any more`;
  if (!found.task.tail)
    return `the file of task ${name} has tail = false, so its output stays on the node; read it there`;
  return undefined;
}
