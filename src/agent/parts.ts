/** What an agent does beside each other: each part tries again by itself, and none ends another. */
import type { Deps } from '../platform/deps.ts';
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { reasonOf } from '../errors.ts';

/** One of the things that an agent does: `requests of ops`, `triggers`. */
export interface Part {
  readonly name: string;
  /** Works until `signal` aborts. What it throws ends this try alone. */
  run(signal: AbortSignal): Promise<void>;
}

const RETRY: Growth = { shortestMs: 1_000, longestMs: 60_000 };
/** A part that has worked for so long begins anew with the shortest pause. */
const LASTING_MS = 120_000;

export interface PartEffects {
  readonly deps: Deps;
  /** Hears why a part fails now; undefined: it works again. */
  readonly failing: (part: string, fault: string | undefined) => void;
}

/** Runs the part until `signal` aborts. Never rejects. */
export async function keepRunning({ deps, failing }: PartEffects, part: Part, signal: AbortSignal) {
  const { clock, emit, random } = deps;
  let failures = 0;
  const isOver = () => signal.aborted;
  while (!isOver()) {
    const startedMs = clock.monotonicMs();
    try {
      await part.run(signal);
      if (isOver()) return;
      throw new Error('it ended by itself');
    } catch (error) {
      if (isOver()) return;
      if (clock.monotonicMs() - startedMs > LASTING_MS) failures = 0;
      const pauseMs = growingMs(failures, RETRY, random);
      const fault = reasonOf(error);
      failures += 1;
      failing(part.name, fault);
      emit({ event: 'agent-part-failed', part: part.name, detail: { fault, pauseMs } });
      await clock.sleep(pauseMs, { signal }).catch(() => undefined);
      failing(part.name, undefined);
    }
  }
}
