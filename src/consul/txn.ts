/** Transactions as lists of steps. A refusal names the step that Consul refused. */
import { RunlockError } from '../errors.ts';
import type { Answer, Consul, Entry, Operation } from './consul.ts';

export interface Step<Obstacle extends string> {
  readonly operation: Operation;
  /** What it means if Consul refuses this step. */
  readonly means: Obstacle;
}

/** `session`: the session that asked for a lock no longer exists. */
export type Result<Obstacle extends string> =
  | { readonly kind: 'done'; readonly entries: readonly Entry[] }
  | {
      readonly kind: 'refused';
      readonly obstacle: Obstacle | 'session';
      /** Which of the steps, from 0. */
      readonly at: number;
      readonly key: string;
      readonly why: string;
    };

/**
 * Sends the steps as one transaction, once.
 * @throws RunlockError: after a transient fault (`isTransient`) it is unknown whether the transaction took effect.
 */
export async function send<Obstacle extends string>(
  consul: Consul,
  steps: readonly Step<Obstacle>[],
  options: { signal: AbortSignal; rule: string; timeoutMs?: number },
): Promise<Result<Obstacle>> {
  const answer: Answer = await consul.transact(
    steps.map((step) => step.operation),
    options,
  );
  if (answer.kind === 'done') return answer;
  const step = steps[answer.at];
  const obstacle = /invalid session/i.test(answer.why) ? 'session' : (step?.means ?? 'session');
  return { kind: 'refused', obstacle, at: answer.at, key: step?.operation.key ?? '', why: answer.why };
}

/**
 * The index that a transaction gave a key. Uses the last entry of the key, because a check of the key returns an
 * entry with the old index first.
 */
export function writtenIndex(entries: readonly Entry[], key: string): number {
  const entry = entries.findLast((candidate) => candidate.key === key);
  if (!entry) throw new RunlockError('bug', `no answer for ${key}; please report this as a bug in runlock`);
  return entry.modifyIndex;
}

/** In which of several lists the step at this place is, counted through all of them; undefined: in none. */
export function listOf(lists: readonly (readonly unknown[])[], at: number): number | undefined {
  let from = 0;
  for (const [list, { length }] of lists.entries()) {
    if (at >= from && at < from + length) return list;
    from += length;
  }
  return undefined;
}
