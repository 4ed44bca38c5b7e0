/** Reads the log of a run of a job on its node, through Consul: asks the node's agent for one piece after the other. */
import { FIRST_CONTACT, isTransient } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import { send } from '../consul/txn.ts';
import { lookPast } from '../consul/watch.ts';
import { RunlockError } from '../errors.ts';
import type { Deps } from '../platform/deps.ts';
import { formatAge } from '../text/age.ts';
import { hint } from '../text/suggested-command.ts';
import { visible } from '../text/visible.ts';
import type { LogPiece, LogRequest } from './documents.ts';
import { jobText, logPieceKey, requestKeys } from './keys.ts';
import type { JobRef } from './keys.ts';
import { askForPiece, leaveLog } from './logs.ts';
import { lookAt } from './read.ts';
import type { Known } from './read.ts';
import { decodeLogPiece, decodeSpec, decodeTargets } from './records.ts';

export interface LogReading {
  readonly consul: Consul;
  readonly deps: Pick<Deps, 'clock' | 'random'>;
  readonly prefix: string;
  readonly ref: JobRef;
  readonly node: string;
  /** Only the last ones; undefined: all. */
  readonly lines: number | undefined;
  /** Until the end of the run. */
  readonly follow: boolean;
  /** How long to wait for each answer, while Consul answers. */
  readonly waitMs: number;
  readonly signal: AbortSignal;
}

export interface LogBytes {
  /** Of the first byte. */
  readonly from: number;
  readonly bytes: Uint8Array;
}

/** The agent lets who follows a log wait so long. */
const HOLD_MS = 15_000;
/** Who leaves does not wait longer: the agent finds out by itself. */
const LEAVE_MS = 1_000;
/** An answer that is not there yet wakes for its neighbours too. */
const PAUSE_MS = 50;

/**
 * Calls `hear` with each piece.
 * @throws RunlockError `config`: there is no such job, it does not name the node, or nothing of it ran there; `refused`: the
 * agent says why not; `busy`: no answer; `forbidden`, naming the rule.
 */
export async function readJobLog(
  reading: LogReading,
  hear: (piece: LogBytes) => Promise<void>,
): Promise<void> {
  const { consul, deps, prefix, ref, node, lines, follow } = reading;
  const place = await findTarget(reading);
  const { home, chunk } = place;
  const reader = Array.from({ length: 12 }, () => Math.floor(deps.random() * 36).toString(36)).join('');
  const keys: Keys = {
    request: requestKeys(prefix, ref.principal).logRequest(node, reader),
    piece: logPieceKey({ prefix, home, ref }, { node, reader }),
    rule: requestKeys(prefix, ref.principal).rule,
  };
  const wish = { id: ref.id, nonce: place.nonce, home, chunk, ...(follow && { follow: true as const }) };
  const ask = asker(reading, place, keys);
  let from: number | undefined;
  try {
    for (let piece = 0; ; piece += 1) {
      const at = { ...(from !== undefined && { from }), ...(lines !== undefined && { lines }) };
      await ask({ ...wish, piece, ...at });
      const answer = await answered(reading, keys, piece);
      if (answer.kind === 'refused') throw new RunlockError('refused', `${node}: ${visible(answer.why)}`);
      const bytes = Buffer.from(answer.bytes, 'base64');
      from = answer.from + bytes.length;
      if (bytes.length > 0) await hear({ from: answer.from, bytes });
      if (answer.ended) return;
    }
  } finally {
    const limits = { signal: AbortSignal.timeout(LEAVE_MS), timeoutMs: LEAVE_MS, rule: keys.rule };
    await send(consul, leaveLog(keys.request), limits).catch(() => undefined);
  }
}

interface Keys {
  readonly request: string;
  readonly piece: string;
  readonly rule: string;
}

interface FoundTarget extends Known {
  readonly nonce: string;
}

/** The node may have removed its pointer, which would say where it is named. */
async function findTarget({ consul, prefix, ref, node, signal }: LogReading): Promise<FoundTarget> {
  const requests = requestKeys(prefix, ref.principal);
  const options = { ...FIRST_CONTACT, signal, rule: `key_prefix "${requests.prefix}" { policy = "read" }` };
  const { entry } = await consul.get(requests.spec(ref.id), options);
  if (!entry)
    throw new RunlockError(
      'config',
      `there is no job ${jobText(ref)}; '${hint(prefix, 'job', 'list')}' lists them`,
    );
  const { home, nonce } = decodeSpec(entry);
  const folder = requests.targetsPrefix(ref.id);
  const { entries } = await consul.list(folder, options);
  const list = entries.find((each) => decodeTargets(each).targets.some(([name]) => name === node));
  if (!list)
    throw new RunlockError(
      'config',
      `job ${jobText(ref)} is not for node ${node}; '${hint(prefix, 'job', 'show', jobText(ref))}' lists its nodes`,
    );
  return { home, nonce, chunk: Number(list.key.slice(folder.length)) };
}

const AGAIN_MS = 1_000;

/** The target's document changes with its run; nothing is asked for a job that is gone. */
function asker(reading: LogReading, place: FoundTarget, { request: key, rule }: Keys) {
  const { consul, deps, prefix, ref, node, signal } = reading;
  const find = async () => {
    const look = await lookAt({ consul, prefix, ref }, { node, known: place }, { signal });
    if (look.kind !== 'target' || look.target.spec.value.nonce !== place.nonce)
      throw new RunlockError('config', `there is no job ${jobText(ref)} any more: somebody removed it`);
    const { keys, document } = look.target;
    if (document) return { key: keys.node(node), index: document.index };
    throw new RunlockError(
      'config',
      `${node} has no log of job ${jobText(ref)}: its agent has not accepted the job; '${hint(prefix, 'job', 'show', jobText(ref))}' says how far it is`,
    );
  };
  let document: Awaited<ReturnType<typeof find>> | undefined;
  return async (request: LogRequest): Promise<void> => {
    for (;;) {
      document ??= await find();
      try {
        const result = await send(consul, askForPiece(document, key, request), { signal, rule });
        if (result.kind === 'done') return;
        document = undefined;
      } catch (error) {
        // To ask again for the same is to ask once.
        if (!isTransient(error) || signal.aborted) throw error;
        await deps.clock.sleep(AGAIN_MS, { signal });
      }
    }
  };
}

/** @throws RunlockError `busy` */
async function answered(
  { consul, deps: { clock }, prefix, node, follow, waitMs, signal }: LogReading,
  keys: Keys,
  piece: number,
): Promise<LogPiece> {
  // Only while Consul answers: after an outage the agent comes back a little later.
  let leftMs = waitMs + (follow ? HOLD_MS : 0);
  for (let index = 0; ;) {
    const startedMs = clock.monotonicMs();
    const limitMs = Math.max(1, leftMs);
    const seen = await lookPast(
      (past) => consul.get(keys.piece, { ...past, signal, rule: keys.rule }),
      index,
      limitMs,
    );
    const answer = seen.entry && decodeLogPiece(seen.entry);
    if (answer?.piece === piece) return answer;
    ({ index } = seen);
    await clock.sleep(PAUSE_MS, { signal });
    leftMs -= Math.min(limitMs, clock.monotonicMs() - startedMs);
    if (leftMs <= 0)
      throw new RunlockError(
        'busy',
        `the agent of ${node} has not answered for ${formatAge(waitMs)}; '${hint(prefix, 'status', '--node', node)}' shows whether it is running (one of an older version gives no logs), and the log is a file on the node as well`,
      );
  }
}
