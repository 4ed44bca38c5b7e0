/** The waits of a run: the random delay before it, and the wait for one slot, reported to the log and the live line. */
import type { Emit, RunEvent } from '../events/events.ts';
import type { Deps, Waiting } from '../platform/deps.ts';
import { acquire } from '../lock/acquire.ts';
import type { Acquired, AcquireRequest } from '../lock/acquire.ts';
import { formatAge } from '../text/age.ts';
import { cut } from '../text/style.ts';
import type { ExecDeps } from './options.ts';

interface Wait {
  readonly waiting: Waiting;
  /** The groups in which the run has a slot already; none unless given. */
  readonly held?: readonly string[];
  /** Whether to log, once, that the run waits, and for which runs. */
  readonly says?: boolean;
}

/** @throws the signal's reason when `waiting.signal` aborts; the queue is left and nothing was started. */
export async function waitForSlot(
  deps: Pick<ExecDeps, 'clock' | 'random' | 'host' | 'emit' | 'consul' | 'liveLine'>,
  request: AcquireRequest,
  { waiting, held = [], says = false }: Wait,
): Promise<Acquired> {
  const { consul, liveLine } = deps;
  const { group, prefix } = request;
  const line = waiting.patience.aborted ? undefined : liveLine?.(deps, { group, prefix, held });
  const over = new AbortController();
  const sinks = [...(line ? [line.hear] : []), ...(says ? [sayWaiting(deps, held, over.signal)] : [])];
  try {
    return await acquire({ consul, deps: { ...deps, emit: toAll(deps.emit, sinks) } }, request, waiting);
  } finally {
    over.abort();
    await line?.close();
  }
}

/** Sends each event to the log first, then to the others. */
export const toAll =
  (log: Emit, others: readonly Emit[]): Emit =>
  (event) => {
    log(event);
    for (const hear of others) hear(event);
  };

/** Shorter waits are not reported as waits. */
const QUIET_MS = 400;

/**
 * Logs once that the run waits, and for which runs, unless `over` aborts first. Uses what the run saw when it joined
 * the queue, which costs no request.
 */
export function sayWaiting({ clock, emit }: Deps, held: readonly string[], over: AbortSignal): Emit {
  let said = false;
  return (event) => {
    if (event.event !== 'queued' || said || !event.hasToWait) return;
    said = true;
    void clock.sleep(QUIET_MS, { signal: over }).then(
      () => emit(waitingEvent(event, held)),
      () => undefined,
    );
  };
}

function waitingEvent(
  { group, node, run, behind, holders }: Extract<RunEvent, { event: 'queued' }>,
  held: readonly string[],
): RunEvent {
  return {
    event: 'waiting',
    group,
    node,
    run,
    behind,
    held: held.length > 0 ? held : undefined,
    holders: holders.map(({ slot, node, state }) => ({ slot, node, state })),
    detail: { holders },
  };
}

const SECOND_MS = 1_000;

/**
 * `--splay`: waits for a random part of `splayMs` before the run asks for anything; a terminal shows the time left.
 * @throws the signal's reason.
 */
export async function waitSplay(
  { clock, random, terminal }: Pick<ExecDeps, 'clock' | 'random' | 'terminal'>,
  splayMs: number,
  signal: AbortSignal,
): Promise<void> {
  const untilMs = clock.monotonicMs() + splayMs * random();
  try {
    for (;;) {
      signal.throwIfAborted();
      const leftMs = untilMs - clock.monotonicMs();
      if (leftMs <= 0) return;
      const line = `waiting ${formatAge(leftMs + SECOND_MS - 1)} before asking for a slot (--splay)`;
      terminal?.draw(cut(line, Math.max(1, terminal.columns() - 1)));
      await clock.sleep(terminal ? Math.min(leftMs, SECOND_MS) : leftMs, { signal });
    }
  } finally {
    terminal?.draw('');
  }
}
