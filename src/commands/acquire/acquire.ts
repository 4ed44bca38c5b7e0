/** `runlock acquire`: waits for a slot, and holds it without a process until `runlock release`. */
import { RunlockError } from '../../errors.ts';
import { hint } from '../../text/suggested-command.ts';
import type { Acquired, AcquireRequest } from '../../lock/acquire.ts';
import type { RunContext } from '../../lock/context.ts';
import { decline } from '../../lock/head-of-queue.ts';
import type { Grant } from '../../lock/head-of-queue.ts';
import type { SeenKey } from '../../lock/transactions.ts';
import { holdOn, keepGrant } from '../../lock/hold.ts';
import type { Owner } from '../../lock/decide.ts';
import { startWaiting } from '../../platform/deps.ts';
import type { Waiting } from '../../platform/deps.ts';
import { busyEvent, placeOf, sentAwayEvent } from '../../runner/run-events.ts';
import { settleBefore } from '../../runner/run-note.ts';
import type { ExecDeps } from '../../runner/options.ts';
import type { Closed, Looked } from '../../runner/outside.ts';
import type { Condition } from '../../conditions/parse.ts';
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
  /** What must hold when the slot becomes held; undefined: nothing. */
  readonly when?: readonly Condition[];
}

export type AcquireDeps = Omit<
  ExecDeps,
  'shareTerminal' | 'signals' | 'connectTo' | 'run' | 'openTurn' | 'uid' | 'newId' | 'inherited' | 'contained'
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
  const { group, when } = options;
  const waiting = startWaiting(deps.clock, options.wait, signal);
  const asking = { run: deps.newRunId(), waiting, startedMs: deps.clock.monotonicMs() };
  const hold = (look?: Look) => holdSlot(deps, options, { ...asking, ...(look && { look }) });
  try {
    if (!when) return orBusy(await hold());
    const { holdWhen } = await import('./when.ts');
    const held = await holdWhen(deps, { ...options, ...asking, when }, hold);
    if (held.kind === 'closed')
      deps.emit({ event: 'when-unmet', run: asking.run, group, missing: held.missing });
    return orBusy(held);
  } finally {
    waiting.end();
  }
}

const orBusy = (held: AcquireResult | Closed): AcquireResult =>
  held.kind === 'closed' ? { kind: 'busy' } : held;

/** A look at the conditions with the slot granted. */
type Look = (signal: AbortSignal) => Promise<Looked>;

interface Asking {
  readonly run: string;
  readonly waiting: Waiting;
  /** In monotonic milliseconds. */
  readonly startedMs: number;
  /** Undefined: there are no conditions. */
  readonly look?: Look;
}

/** `closed`: conditions were not met with the slot granted, which was given up again. */
async function holdSlot(
  deps: AcquireDeps,
  options: AcquireOptions,
  asking: Asking,
): Promise<AcquireResult | Closed> {
  for (let tries = 0; tries < TRIES; tries++) {
    const result = await tryOnce(deps, options, asking);
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
  asking: Asking,
): Promise<AcquireResult | Closed | undefined> {
  const { signal } = asking.waiting;
  const acquired = await askForSlot(deps, options, asking);
  if (acquired.kind === 'granted') return keepSlot(deps, acquired.grant, asking);
  if (acquired.kind === 'sent-away') {
    deps.emit(sentAwayEvent(acquired));
    return { kind: 'lost' };
  }
  if (acquired.kind === 'out-of-turn')
    throw new RunlockError(
      'bug',
      'acquire needs no turn of its node; please report this as a bug in runlock',
    );
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
  { prefix, group, slots, hold, node, sessionTtlMs }: AcquireOptions,
  { run: id, waiting }: Asking,
): Promise<Acquired> {
  const runner = { ...deps.host.self(), ...(await deps.host.place()) };
  const run = { id, command: 'acquire', runner, hold, slots };
  const named = node !== undefined && { node };
  const request: AcquireRequest = { prefix, group, ...named, run, ttlMs: sessionTtlMs };
  return waitForSlot(deps, request, { waiting });
}

/** Makes a held slot of a granted one. */
async function keepSlot(
  deps: AcquireDeps,
  grant: Grant,
  { waiting: { signal }, startedMs, look }: Asking,
): Promise<AcquireResult | Closed> {
  let seen: readonly SeenKey[] = [];
  try {
    const looked = look && !signal.aborted ? await look(signal) : undefined;
    if (looked?.kind === 'closed') {
      await decline(grant);
      return looked;
    }
    if (looked) ({ seen } = looked);
  } catch (error) {
    await decline(grant);
    throw error;
  }
  const waitedMs = deps.clock.monotonicMs() - startedMs;
  const kept = signal.aborted ? undefined : await keepGrant(grant, waitedMs, seen);
  if (kept?.kind === 'changed') return { kind: 'closed', verdicts: [], missing: [changedText(kept.key)] };
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

const changedText = (key: string) => `${key} has changed`;

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
