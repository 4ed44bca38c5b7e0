/**
 * A granted slot while it is held: watch it, take it back after a lost session, know when it is lost, give it back
 * (docs/protocol.md, "While it runs" and "Release").
 */
import { isTransient } from '../consul/consul.ts';
import { assertNever, reasonOf } from '../errors.ts';
import { closeSession, giveBack } from './release.ts';
import type { Ending, GivenBack } from './release.ts';
import { decline } from './grant.ts';
import type { Grant } from './grant.ts';
import { look } from './observe.ts';
import type { Live } from './observe.ts';
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import type { Hold } from './records.ts';
import { recover } from './recover.ts';
import { VANISHED_AFTER_MS } from './slot.ts';
import type { Owner, Standing } from './slot.ts';

/** Why the command must end before its time. */
export type Over =
  | { readonly kind: 'evicted'; readonly by: string }
  | { readonly kind: 'lost'; readonly why: string }
  /** Nothing proved the lock for so long that others may soon follow. */
  | { readonly kind: 'cut-off' };

export interface Lease {
  /** Aborts, with an `Over` as its reason, when the command must end. */
  readonly over: AbortSignal;
  /** When the command's tree must be dead, in monotonic milliseconds; Infinity with `hold = forever`. */
  deadlineMs(): number;
  /**
   * Looks at the clock now. Of a process that was stopped all other news may come before the timer that does this: whoever
   * starts something asks first.
   */
  checkDeadline(): void;
  /** Stops watching; what is held stays held. */
  stop(): Promise<void>;
  /**
   * Stops watching and gives the slot up, before anything was started in it: all is as it was before the grant. False: it
   * could not be, and that was said.
   */
  decline(): Promise<boolean>;
  /** Stops watching and gives the slot back. The command's tree is gone by then. */
  release(ending: Ending): Promise<GivenBack>;
}

/** After a fault that may be over in a moment, and after a refusal, which somebody has to mend. */
const FAULTY: Growth = { shortestMs: 1_000, longestMs: 5_000 };
const REFUSED: Growth = { shortestMs: 1_000, longestMs: 30_000 };
/** A change is seen this much later in the first moments of a run. */
const FIRST_LOOK_MS = 100;
/** Two seconds for the kill, five more should two clocks differ by twice of what is allowed. */
const MARGIN_MS = 7_000;

/** `killAfterMs`: TERM must go out this long before the deadline. */
export function holdLease(
  grant: Grant,
  { ttlMs, killAfterMs }: { ttlMs: number; killAfterMs: number },
): Lease {
  const { run } = grant.context;
  const over = new AbortController();
  const ended = new AbortController();
  const live: Live = {
    holding: grant,
    provedMs: grant.provedMs,
    ttlMs,
    isOver: false,
    ended: ended.signal,
    failures: 0,
  };
  const deadlineMs = () => live.provedMs + deadAfterMs(run.hold);
  const end = (reason: Over) => {
    if (!over.signal.aborted && !live.isOver) over.abort(reason);
  };
  const watching = watch(live, end).catch((error: unknown) => {
    end({ kind: 'lost', why: reasonOf(error) });
  });
  void untilCutOff(live, () => deadlineMs() - killAfterMs, end);
  const stop = async () => {
    live.isOver = true;
    ended.abort();
    await watching;
  };
  return {
    over: over.signal,
    deadlineMs,
    checkDeadline: () => {
      if (deadlineMs() - killAfterMs <= grant.context.deps.clock.monotonicMs()) end({ kind: 'cut-off' });
    },
    stop,
    decline: async () => {
      await stop();
      // The session may be another one by now; whatever was sent under it can do nothing when it is gone.
      return decline(live.holding);
    },
    release: async (ending) => {
      live.isOver = true;
      // What takes the slot back must not arrive after its release. A look ends by itself, by what the release changes.
      if (live.recovering || live.unanswered) await stop();
      if (live.unanswered) await closeSession(live.holding);
      return giveBack(live.holding, { ...ending, ttlMs }).finally(stop);
    },
  };
}

/**
 * How long after the last proof the command must be dead, in milliseconds. Nobody can be granted the slot before 60 s
 * and the hold have passed: whoever marks the claim as missing sees that its lock is gone, so after that proof; the hosts'
 * clocks, by which others judge the mark and the hold's end, may differ by 5 s (docs/adr/0018).
 */
export function deadAfterMs(hold: Hold): number {
  switch (hold) {
    case 'forever':
      return Infinity;
    case 'none':
      return VANISHED_AFTER_MS - MARGIN_MS;
    default:
      return VANISHED_AFTER_MS + hold - MARGIN_MS;
  }
}

async function untilCutOff(live: Live, termAtMs: () => number, end: (reason: Over) => void): Promise<void> {
  const { clock } = live.holding.context.deps;
  if (termAtMs() === Infinity) return;
  try {
    for (
      let leftMs = termAtMs() - clock.monotonicMs();
      leftMs > 0;
      leftMs = termAtMs() - clock.monotonicMs()
    ) {
      await clock.sleep(leftMs, { signal: live.ended });
    }
    end({ kind: 'cut-off' });
  } catch {
    // The run has ended.
  }
}

/** Looks at the slot again and again, and does what its standing asks for, until the run ends or the lock is lost. */
async function watch(live: Live, end: (reason: Over) => void): Promise<void> {
  const { clock } = live.holding.context.deps;
  const ended = () => live.isOver;
  // A claim that was found, not written, may be evicted by now: then the first look must not wait for a change.
  const { claim, index: written } = live.holding.owner;
  let index = claim.state === 'running' ? written : 0;
  // The run is started first, and a short one costs no look: what changes meanwhile, the first one sees.
  await clock.sleep(FIRST_LOOK_MS, { signal: live.ended });
  while (!ended()) {
    try {
      const seen = await look(live, index);
      if (ended()) return;
      if (await act(live, seen.standing, end)) return;
      if (seen.standing.kind === 'mine') endTrouble(live);
      index = seen.standing.kind === 'mine' ? seen.index : 0;
    } catch (error) {
      // Nothing is known, so nothing is lost yet: not even a refusal proves anything.
      if (ended()) return;
      sayTrouble(live, error);
      index = 0;
      await clock.sleep(pauseMs(live, error), { signal: live.ended });
    }
  }
}

/** With a hold that ends, the reads are the proofs: the pause stays as short as a look may wait. */
function pauseMs(live: Live, error: unknown): number {
  const growth = isTransient(error) ? FAULTY : REFUSED;
  const { run, deps } = live.holding.context;
  const longestMs = run.hold === 'forever' ? growth.longestMs : Math.min(growth.longestMs, live.ttlMs / 6);
  return growingMs(live.failures++, { ...growth, longestMs }, deps.random);
}

/** All is as it should be: a slot that could be read, and not be taken back, was no end of it. */
function endTrouble(live: Live): void {
  live.failures = 0;
  delete live.silentSinceMs;
  if (live.trouble === undefined) return;
  const { keys, deps } = live.holding.context;
  deps.emit({ event: 'slot-seen', detail: { group: keys.group } });
  delete live.trouble;
}

/** The same trouble is said once. */
function sayTrouble(live: Live, error: unknown): void {
  const message = reasonOf(error);
  if (isTransient(error) ? !isNewSilence(live) : message === live.trouble) return;
  live.trouble = message;
  live.holding.context.deps.emit({ event: 'slot-unseen', detail: { fault: message } });
}

/** Longer than an election, or an agent's restart by the command, takes. */
const QUIET_SILENCE_MS = 30_000;

/** With a hold that ends, the run's deadline speaks; with `forever` nothing else ever would. */
function isNewSilence(live: Live): boolean {
  const { run, deps } = live.holding.context;
  const nowMs = deps.clock.monotonicMs();
  live.silentSinceMs ??= nowMs;
  const isLong = nowMs - live.silentSinceMs >= QUIET_SILENCE_MS;
  return run.hold === 'forever' && isLong && live.trouble === undefined;
}

/** True: it is over. */
async function act(live: Live, now: Standing, end: (reason: Over) => void): Promise<boolean> {
  switch (now.kind) {
    case 'mine':
      live.holding = { ...live.holding, owner: now.owner };
      return false;
    case 'evicted':
      live.holding = { ...live.holding, owner: now.owner };
      end({ kind: 'evicted', by: now.owner.claim.by ?? 'an operator' });
      return true;
    case 'unlocked':
    case 'gone': {
      live.recovering = true;
      const recovered = await recover(live, now).finally(() => (live.recovering = false));
      if (recovered.kind === 'lost') end(recovered);
      return recovered.kind === 'lost';
    }
    case 'foreign':
      end({ kind: 'lost', why: describeForeign(now.owner) });
      return true;
    default:
      return assertNever(now);
  }
}

const describeForeign = (owner: Owner | undefined): string =>
  owner ? `its claim names ${owner.claim.node} (run ${owner.claim.run})` : 'its claim was overwritten';
