/**
 * The last line of a command's output in Consul, for who watches its job: at most one write in two seconds, and none
 * while nobody watches.
 */
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { send } from '../consul/txn.ts';
import { contendersOf } from '../jobs/contend.ts';
import { tail } from '../jobs/transactions.ts';
import type { SeenTarget } from '../jobs/transactions.ts';
import { LONGEST_LINE, isOurs, lookAtTarget, rulesOf } from './job-end.ts';
import type { RunOf } from './job-end.ts';

const PAUSE_MS = 2_000;
/** So all runs of a job together write 20 times a second at most. */
const PAUSE_PER_RUN_MS = 50;
const REQUEST_MS = 5_000;
/** Nothing is wrong if nobody sees a line. */
const AGAIN: Growth = { shortestMs: PAUSE_MS, longestMs: 60_000 };

export interface LiveLine {
  hear(line: string): void;
  /** Somebody watches until then, by the wall clock; 0: nobody does. */
  watched(untilMs: number): void;
  /** The command has begun, and its target is running. */
  begin(): void;
}

export interface Told {
  readonly of: RunOf;
  /** So many runs of the job can be under way at once. */
  readonly slots: number;
  /** Aborts at the end of the run. */
  readonly signal: AbortSignal;
}

export function liveLine({ of, slots, signal }: Told): LiveLine {
  const { clock, random } = of.deps;
  let line = '';
  let written = '';
  let watchedUntilMs = 0;
  let hasBegun = false;
  let isWriting = false;
  let target: SeenTarget | undefined;

  const isDue = () =>
    hasBegun && !signal.aborted && line !== written && line !== '' && clock.now() < watchedUntilMs;

  function ring(): void {
    if (isWriting || !isDue()) return;
    isWriting = true;
    // It rejects only when the run is over.
    void write()
      .catch(() => undefined)
      .finally(() => (isWriting = false));
  }

  async function write(): Promise<void> {
    for (let failures = 0; isDue();) {
      const pauseMs = await writeOnce().then(
        () => {
          failures = 0;
          return Math.max(PAUSE_MS, PAUSE_PER_RUN_MS * Math.min(slots, target ? contendersOf(target) : 1));
        },
        () => growingMs(failures++, AGAIN, random),
      );
      await clock.sleep(pauseMs, { signal });
    }
  }

  async function writeOnce(): Promise<void> {
    const limits = { signal, timeoutMs: REQUEST_MS };
    target ??= await lookAtTarget(of, { ...limits, retryForMs: 0 });
    if (!target || !isOurs(target, of.run)) {
      // Somebody has marked it lost, or removed it.
      hasBegun = false;
      return;
    }
    const said = line;
    const result = await send(of.consul, tail(target, said), { ...limits, rule: rulesOf(of) });
    if (result.kind === 'done') written = said;
    else target = undefined;
  }

  return {
    hear: (said) => {
      line = said.slice(0, LONGEST_LINE);
      ring();
    },
    watched: (untilMs) => {
      watchedUntilMs = untilMs;
      ring();
    },
    begin: () => {
      hasBegun = true;
      ring();
    },
  };
}
