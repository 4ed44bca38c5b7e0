/** That a run has to wait, and for whom, from what it saw when it joined the queue: that costs no request. */
import type { Deps } from '../../platform/deps.ts';
import { isTaken } from '../../lock/decide.ts';
import type { AtJoin } from '../../lock/context.ts';
import { toHolder } from './busy.ts';

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

/** Tells once that the run waits, unless `signal` aborts before that. */
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
