/** The wait for one slot, with the live line while it lasts. */
import type { Deps } from '../platform/deps.ts';
import { acquire } from '../lock/acquire.ts';
import type { Acquired, AcquireRequest } from '../lock/acquire.ts';
import type { AtJoin, Waiting } from '../lock/context.ts';
import type { ExecDeps } from './options.ts';
import { watchQueue } from './live-progress.ts';
import { isTaken } from '../lock/decide.ts';
import { toHolder } from './busy.ts';

export interface Wait {
  /** Ends it at once. */
  readonly signal: AbortSignal;
  /** The end of `--wait`: everything is still asked once. */
  readonly patience: AbortSignal;
  /** The groups in which the run has a slot already; none unless given. */
  readonly held?: readonly string[];
  readonly onJoined?: Waiting['onJoined'];
  readonly onFirst?: Waiting['onFirst'];
  readonly onNext?: Waiting['onNext'];
}

/** @throws the signal's reason when `signal` aborts; the queue is left and nothing was started. */
export async function waitForSlot(
  deps: Pick<ExecDeps, 'clock' | 'random' | 'host' | 'emit' | 'consul' | 'terminal' | 'verbose'>,
  request: AcquireRequest,
  { signal, patience, held = [], onJoined, onFirst, onNext }: Wait,
): Promise<Acquired> {
  const { terminal, verbose } = deps;
  const { group, prefix } = request;
  const line =
    (terminal ?? verbose) && !patience.aborted
      ? watchQueue(deps, { group, prefix, held, terminal })
      : undefined;
  try {
    return await acquire({ consul: deps.consul, deps }, request, {
      signal,
      patience,
      either: AbortSignal.any([signal, patience]),
      onFirst: () => {
        line?.first();
        onFirst?.();
      },
      ...(onNext && { onNext }),
      onAhead: (keys) => line?.ahead(keys),
      onJoined: (session, seen) => {
        line?.joined(session, seen.behind);
        onJoined?.(session, seen);
      },
    });
  } finally {
    await line?.close();
  }
}

/** Whoever gets a slot within this time did not wait. */
const QUIET_MS = 400;

interface Waiter {
  readonly group: string;
  readonly run: string;
  /** How many slots it knows. */
  readonly slots: number;
  /** The groups in which it has a slot already. */
  readonly held: readonly string[];
}

/**
 * Tells once that the run waits, and for whom, from what it saw when it joined the queue: that costs no request. Unless
 * `signal` aborts before that.
 */
export function watchWait(deps: Deps, waiter: Waiter, signal: AbortSignal): (seen: AtJoin) => void {
  let said = false;
  return (seen) => {
    if (said || !hasToWait(seen, waiter.slots)) return;
    said = true;
    void deps.clock.sleep(QUIET_MS, { signal }).then(
      () => emitWaiting(deps, waiter, seen),
      () => undefined,
    );
  };
}

/** Alone in the queue and with a slot free, only a freeze can keep it waiting; that is said where it is met. */
function hasToWait({ behind, slots }: AtJoin, known: number): boolean {
  return behind || slots.filter(isTaken).length >= known;
}

function emitWaiting(
  { clock, emit }: Deps,
  { group, run, held }: Waiter,
  { node, behind, slots }: AtJoin,
): void {
  const holders = slots.flatMap((slot) => toHolder(slot, clock.now()));
  emit({
    event: 'waiting',
    group,
    node,
    run,
    behind,
    held: held.length > 0 ? held : undefined,
    holders: holders.map(({ slot, node, state }) => ({ slot, node, state })),
    detail: { holders },
  });
}
