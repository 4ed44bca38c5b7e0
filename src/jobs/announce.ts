/** Who watches a job says so, so that its runs write the last line of their output (docs/protocol.md, "Live output"). */
import { send } from '../consul/txn.ts';
import { isRunlockError } from '../errors.ts';
import type { JobKeys } from './keys.ts';
import type { Looker } from './look.ts';
import { jobWriteRule } from './read.ts';
import { markWatched, unmarkWatched } from './transactions.ts';
import type { JobView } from './view.ts';

/** How long a mark counts, and after how long it is written again. */
const [LASTS_MS, AGAIN_MS] = [90_000, 30_000];
const REQUEST_MS = 5_000;
/** Who leaves does not wait longer: the mark ends by itself. */
const LEAVE_MS = 1_000;

export interface Announcer {
  /** Called with each look. Without the right to write the job it does nothing. */
  look(view: JobView): Promise<void>;
  /** Nobody watches here any more. Never rejects. */
  leave(): Promise<void>;
}

export function createAnnouncer({ consul, deps: { clock, random }, prefix, signal }: Looker): Announcer {
  const watch = Array.from({ length: 12 }, () => Math.floor(random() * 36).toString(36)).join('');
  let markedMs = -Infinity;
  let marked: { readonly keys: JobKeys; readonly rule: string } | undefined;
  let isAllowed = true;
  return {
    look: async ({ ref, job, targets, isOver }) => {
      if (!isAllowed || isOver || !targets.some(({ state }) => state === 'running')) return;
      if (clock.monotonicMs() - markedMs < AGAIN_MS) return;
      const rule = jobWriteRule(prefix, job.spec.value.home, ref.principal);
      const until = new Date(clock.now() + LASTS_MS).toISOString();
      marked = { keys: job.keys, rule };
      try {
        const limits = { signal, rule, timeoutMs: REQUEST_MS };
        const result = await send(consul, markWatched(job, { watch, until }), limits);
        // If the stage has changed meanwhile, another look follows at once.
        if (result.kind === 'done') markedMs = clock.monotonicMs();
      } catch (error) {
        signal.throwIfAborted();
        if (!isRunlockError(error, 'forbidden')) return;
        isAllowed = false;
        marked = undefined;
      }
    },
    leave: async () => {
      if (!marked) return;
      const limits = { signal: AbortSignal.timeout(LEAVE_MS), rule: marked.rule, timeoutMs: LEAVE_MS };
      await send(consul, unmarkWatched(marked.keys, watch), limits).catch(() => undefined);
    },
  };
}
