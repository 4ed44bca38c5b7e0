/** `runlock acquire`: waits for a slot, and holds it without a process until `runlock release`. */
import { RunlockError } from '../../errors.ts';
import { hint } from '../../text/suggested-command.ts';
import type { Acquired, AcquireRequest } from '../../lock/acquire.ts';
import type { RunContext } from '../../lock/context.ts';
import { decline } from '../../lock/head-of-queue.ts';
import { holdOn, keepGrant } from '../../lock/hold.ts';
import type { Owner } from '../../lock/decide.ts';
import { startWaiting } from '../../platform/deps.ts';
import { busyEvent, placeOf, sentAwayEvent } from '../../runner/run-events.ts';
import { settleBefore } from '../../runner/run-note.ts';
import type { ExecDeps } from '../../runner/options.ts';
import { waitForSlot } from '../../runner/wait.ts';

export interface AcquireOptions {
  readonly prefix: string;
  readonly group: string;
  readonly slots: number;
  /** Milliseconds. */
  readonly wait: number | 'forever';
  /** Milliseconds. */
  readonly hold: 'forever' | number;
  readonly node?: string;
  readonly sessionTtlMs: number;
}

export type AcquireDeps = Omit<
  ExecDeps,
  'shareTerminal' | 'signals' | 'connectTo' | 'run' | 'newId' | 'inherited' | 'contained'
> & {
  readonly newRunId: () => string;
};

/** The slot that is held. Times are ISO 8601 in UTC. */
export interface Held {
  readonly group: string;
  readonly node: string;
  readonly slot: number;
  readonly run: string;
  /** Grows with each grant of the slot, and each time `acquire` is repeated. */
  readonly fencingToken: number;
  readonly since: string;
  readonly waitedMs: number;
  /** When other runs may have the slot. Absent: only after the release. */
  readonly heldUntil?: string;
}

export type AcquireResult =
  /** `already`: this node held the slot before. */
  | { readonly kind: 'held'; readonly already: boolean; readonly held: Held }
  | { readonly kind: 'busy' }
  /** An operator or another process took the slot away before it was held, or sent the waiting run away. */
  | { readonly kind: 'lost' };

/** Give up after so many tries: so many concurrent changes of the claim are no longer chance. */
const TRIES = 5;

/**
 * @throws RunlockError: wrong usage, no Consul, no rights; the signal's reason when it aborts: nothing is held then.
 */
export async function acquireSlot(
  deps: AcquireDeps,
  options: AcquireOptions,
  signal: AbortSignal,
): Promise<AcquireResult> {
  for (let tries = 0; tries < TRIES; tries++) {
    const result = await tryOnce(deps, options, signal);
    if (result) return result;
  }
  const { prefix, group } = options;
  throw new RunlockError(
    'refused',
    `the claim of this node in ${group} keeps changing; check '${hint(prefix, 'status', group)}' and try again`,
  );
}

/** Undefined: this node's claim changed during the request. */
async function tryOnce(
  deps: AcquireDeps,
  options: AcquireOptions,
  signal: AbortSignal,
): Promise<AcquireResult | undefined> {
  const startedMs = deps.clock.monotonicMs();
  const acquired = await askForSlot(deps, options, signal);
  if (acquired.kind === 'granted') {
    const { grant } = acquired;
    const waitedMs = deps.clock.monotonicMs() - startedMs;
    const kept = signal.aborted ? undefined : await keepGrant(grant, waitedMs);
    if (kept?.kind === 'lost') {
      const detail = { over: { kind: 'lost', why: kept.why }, then: 'not-held' } as const;
      deps.emit({ event: 'lost', ...placeOf(grant), why: 'lost', detail });
      return { kind: 'lost' };
    }
    if (kept && !signal.aborted) {
      settleBefore(deps, [{ grant }]);
      return tellHeld(deps, grant.context, { ...kept, slot: grant.slot, already: false });
    }
    // A caller that was told to stop will not come back to release the slot.
    await decline(grant);
    throw signal.reason;
  }
  if (acquired.kind === 'sent-away') {
    deps.emit(sentAwayEvent(acquired));
    return { kind: 'lost' };
  }
  const { context, why } = acquired;
  if (why.kind !== 'held') {
    deps.emit(
      busyEvent(acquired, { wait: options.wait, nowMs: deps.clock.now(), asked: askedBy(deps, acquired) }),
    );
    return { kind: 'busy' };
  }
  const owner = await holdOn(context, why, signal);
  return owner && tellHeld(deps, context, { owner, slot: why.slot, already: true });
}

async function askForSlot(
  deps: AcquireDeps,
  { prefix, group, wait, slots, hold, node, sessionTtlMs }: AcquireOptions,
  signal: AbortSignal,
): Promise<Acquired> {
  const runner = { ...deps.host.self(), ...(await deps.host.place()) };
  const run = { id: deps.newRunId(), command: 'acquire', runner, hold, slots };
  const named = node !== undefined && { node };
  const request: AcquireRequest = { prefix, group, ...named, run, ttlMs: sessionTtlMs };
  const waiting = startWaiting(deps.clock, wait, signal);
  try {
    return await waitForSlot(deps, request, { waiting });
  } finally {
    waiting.end();
  }
}

function tellHeld(
  deps: AcquireDeps,
  { keys: { group, root: prefix }, run: { node } }: RunContext,
  { owner, slot, already }: { owner: Owner; slot: number; already: boolean },
): AcquireResult {
  const { run, since, waitedMs = 0, heldUntil } = owner.claim;
  const until = heldUntil === undefined ? {} : { heldUntil };
  const held: Held = { group, node, slot, run, fencingToken: owner.index, since, waitedMs, ...until };
  const forMs = deps.clock.now() - Date.parse(since);
  deps.emit(
    already
      ? { event: 'already-held', ...held, detail: { prefix, forMs } }
      : { event: 'granted', ...held, detail: { prefix } },
  );
  return { kind: 'held', already, held };
}

function askedBy({ env }: AcquireDeps, { context }: Extract<Acquired, { kind: 'busy' }>) {
  const { RUNLOCK_RUN_GROUP: groups = '', RUNLOCK_RUN_NODE: node, RUNLOCK_RUN_ID: run } = env;
  const isInside = groups.split(',').includes(context.keys.group) && node === context.run.node;
  return isInside && run !== undefined ? 'acquire-inside-exec' : 'acquire';
}
