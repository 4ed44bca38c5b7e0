/**
 * Transactions of who reads the log of a run through Consul, and of the node's agent that answers (docs/protocol.md,
 * "Logs"). Each rests on the target's document: nothing is written for a job that is gone, and the answer also on the
 * request as it was read, so that nothing is written for a reader that is gone. Pure.
 */
import type { Operation } from '../consul/consul.ts';
import type { Step } from '../consul/txn.ts';
import type { LogPiece, LogRequest } from './documents.ts';
import { encodeLogPiece, encodeLogRequest } from './records.ts';

/** A key as it was read. */
interface SeenAt {
  readonly key: string;
  readonly index: number;
}

/** `reader`: it wants something else by now, or has left. */
type LogStep = Step<'target' | 'reader'>;

const step = (means: 'target' | 'reader', operation: Operation): LogStep => ({ means, operation });
const unchanged = (means: 'target' | 'reader', { key, index }: SeenAt): LogStep => ({
  means,
  operation: { verb: 'check-index', key, index },
});

/** A reader asks for the next piece. */
export const askForPiece = (document: SeenAt, key: string, request: LogRequest): LogStep[] => [
  unchanged('target', document),
  step('reader', { verb: 'set', key, value: encodeLogRequest(request) }),
];

/** The agent answers. The piece goes with its session. */
export const answerPiece = (
  document: SeenAt,
  request: SeenAt,
  { key, piece, session }: { readonly key: string; readonly piece: LogPiece; readonly session: string },
): LogStep[] => [
  unchanged('target', document),
  unchanged('reader', request),
  step('target', { verb: 'lock', key, value: encodeLogPiece(piece), session }),
];

/** A reader leaves; or the agent removes the answer of one that has left, which may have no right to do that itself. */
export const leaveLog = (key: string): LogStep[] => [step('reader', { verb: 'delete', key })];

/** The agent gives a reader up that has not asked for anything for too long, unless it does so at this moment. */
export const dropReader = (request: SeenAt, piece: string | undefined): LogStep[] => [
  step('reader', { verb: 'delete-cas', ...request }),
  ...(piece === undefined ? [] : [step('reader', { verb: 'delete', key: piece })]),
];
