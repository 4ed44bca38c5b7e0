/** `runlock acquire`: waits for a slot, and holds it without a process until `runlock release`. */
import { RunlockError } from '../../errors.ts';
import { hint } from '../../text/suggested-command.ts';
import type { Acquired, AcquireRequest } from '../../lock/acquire.ts';
import type { RunContext } from '../../lock/context.ts';
import { decline } from '../../lock/grant.ts';
import { holdOn, keepGrant } from '../../lock/hold.ts';
import type { Owner } from '../../lock/slot.ts';
import { formatAge } from '../../text/age.ts';
import { describeBusy, saySentAway } from '../wait/busy.ts';
import { placeOf } from '../exec/finish.ts';
import { settleBefore } from '../exec/run-note.ts';
import type { ExecDeps } from '../exec-deps.ts';
import { startPatience, waitForSlot } from '../wait/wait-for-slot.ts';

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
  'shareTerminal' | 'connectTo' | 'run' | 'inherited' | 'contained'
> & {
  readonly newRunId: () => string;
};

/** What is held. Times are ISO 8601 in UTC. */
export interface Held {
  readonly group: string;
  readonly node: string;
  readonly slot: number;
  readonly run: string;
  /** Grows with every grant of the slot, and whenever it is asked for again. */
  readonly fencingToken: number;
  readonly since: string;
  readonly waitedMs: number;
  /** When others may follow. Absent: not before the release. */
  readonly heldUntil?: string;
}

export type AcquireResult =
  /** `already`: it was held before it was asked for. */
  | { readonly kind: 'held'; readonly already: boolean; readonly held: Held }
  | { readonly kind: 'busy' }
  /** Somebody took it away before it was held, or sent it away while it waited. */
  | { readonly kind: 'lost' }
  /** A signal ended it; nothing is held. */
  | { readonly kind: 'interrupted'; readonly signal: NodeJS.Signals };

/** The claim changed at the same moment, again and again: that is no longer chance. */
const TRIES = 5;

/** @throws RunlockError: wrong usage, no Consul, no rights. */
export async function acquireSlot(deps: AcquireDeps, options: AcquireOptions): Promise<AcquireResult> {
  const stop = new AbortController();
  let stoppedBy: NodeJS.Signals | undefined;
  deps.signals.listen((signal) => {
    stoppedBy ??= signal;
    stop.abort();
  });
  try {
    for (let tries = 0; tries < TRIES; tries++) {
      const result = await tryOnce(deps, options, stop.signal);
      if (result) return result;
    }
  } catch (error) {
    if (stoppedBy !== undefined && error === stop.signal.reason)
      return { kind: 'interrupted', signal: stoppedBy };
    throw error;
  }
  const { prefix, group } = options;
  throw new RunlockError(
    'refused',
    `what this node holds in ${group} keeps changing; look at '${hint(prefix, 'status', group)}' and try again`,
  );
}

/** Undefined: what this node held has changed while it was asked for. */
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
      const message = `slot ${grant.slot} of ${options.group} was lost before it was held: ${kept.why}`;
      deps.log('error', message, { event: 'lost', ...placeOf(grant), why: 'lost' });
      return { kind: 'lost' };
    }
    if (kept && !signal.aborted) {
      settleBefore(deps, [{ grant }]);
      return sayHeld(deps, grant.context, { ...kept, slot: grant.slot, already: false });
    }
    // Whoever was told to stop does not come back to release it.
    await decline(grant);
    throw signal.reason;
  }
  if (acquired.kind === 'sent-away') {
    saySentAway(deps, acquired);
    return { kind: 'lost' };
  }
  const { context, why } = acquired;
  if (why.kind !== 'held') return sayBusy(deps, acquired, options);
  const owner = await holdOn(context, why, signal);
  return owner && sayHeld(deps, context, { owner, slot: why.slot, already: true });
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
  const patience = startPatience(deps.clock, wait);
  try {
    return await waitForSlot(deps, request, { signal, patience: patience.signal });
  } finally {
    patience.stop();
  }
}

function sayHeld(
  deps: AcquireDeps,
  { keys: { group, root }, run: { node } }: RunContext,
  { owner, slot, already }: { owner: Owner; slot: number; already: boolean },
): AcquireResult {
  const { run, since, waitedMs = 0, heldUntil } = owner.claim;
  const until = heldUntil === undefined ? {} : { heldUntil };
  const held: Held = { group, node, slot, run, fencingToken: owner.index, since, waitedMs, ...until };
  const age = formatAge(deps.clock.now() - Date.parse(since));
  const got = already
    ? `${node} holds slot ${slot} of ${group} already (since ${age})`
    : `${node} got slot ${slot} of ${group} after ${formatAge(waitedMs)} and holds it`;
  const end = `${heldUntil === undefined ? '' : `${heldUntil} or `}'${hint(root, 'release', group)}'`;
  deps.log('info', `${got} until ${end}`, { event: already ? 'already-held' : 'granted', ...held });
  return { kind: 'held', already, held };
}

/** Never silent as `exec` is for cron: whoever asked for the first half must not go on. */
function sayBusy(
  deps: AcquireDeps,
  busy: Extract<Acquired, { kind: 'busy' }>,
  { wait, group }: AcquireOptions,
): AcquireResult {
  const { level, message } = describeBusy(busy, { wait, nowMs: deps.clock.now() });
  const { env } = deps;
  const groups = env['RUNLOCK_RUN_GROUP']?.split(',') ?? [];
  const inside = groups.includes(group) && env['RUNLOCK_RUN_NODE'] === busy.context.run.node;
  const hint =
    busy.why.kind === 'same-node' && inside && env['RUNLOCK_RUN_ID'] !== undefined
      ? "; this is inside a 'runlock exec' of the group, which holds the slot and gives it back: leave acquire and release out"
      : '';
  const { node, id } = busy.context.run;
  const fields = { event: 'busy', group, node, run: id, why: busy.why.kind };
  deps.log(level === 'info' ? 'warning' : level, `${message}${hint}`, fields);
  return { kind: 'busy' };
}
