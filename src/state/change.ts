/** Setting and deleting states, whatever happens to the answers. */
import { isTransient } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import { pause } from '../consul/retry.ts';
import { send } from '../consul/txn.ts';
import type { Step } from '../consul/txn.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import type { Deps } from '../platform/deps.ts';
import { hint } from '../text/suggested-command.ts';
import { encodeState, leftOfState } from './document.ts';
import type { StateDocument } from './document.ts';
import { stateKey, stateRule } from './path.ts';
import { listDocuments, readDocument } from './read.ts';
import type { Seen } from './read.ts';

export interface Changing {
  readonly consul: Consul;
  readonly deps: Deps;
  readonly prefix: string;
  readonly signal: AbortSignal;
}

export interface SetRequest {
  readonly path: string;
  readonly value: string;
  readonly by: string;
  readonly run?: string | undefined;
  /** Milliseconds; undefined: until it is deleted. */
  readonly ttlMs?: number | undefined;
  /** Set the state only if this is true; undefined: always. */
  readonly only?: { readonly if: 'absent' } | { readonly if: 'value'; readonly value: string } | undefined;
  /** Whether to count as a change even if the value is the same. */
  readonly touch: boolean;
  /** A change's random id. */
  readonly newId: () => string;
}

/** `before`: what was there, unless it was past its end. */
export type SetResult =
  | { readonly kind: 'set'; readonly state: StateDocument; readonly before?: StateDocument }
  /** The state already had this value; no watcher was woken. */
  | { readonly kind: 'unchanged'; readonly state: StateDocument }
  /** The state already had this value; only its expiry changed. */
  | { readonly kind: 'extended'; readonly state: StateDocument }
  /** The state is not what `only` asks for. */
  | { readonly kind: 'refused'; readonly before?: StateDocument };

/** Give up after so many tries: losing to other writers that often is no longer chance. */
const TRIES = 10;

/**
 * Sets a state, if it is what `only` says.
 * @throws RunlockError `forbidden`, naming the rule; `refused`: the state keeps changing; a transient fault, which says
 * so where nobody knows whether the state was set.
 */
export async function setState(changing: Changing, request: SetRequest): Promise<SetResult> {
  const { deps, prefix, signal } = changing;
  const { path, only } = request;
  const wanted = newDocument(deps, request);
  let unsure: { readonly seen: Seen | undefined; readonly error: unknown } | undefined;
  for (let tries = 1; tries <= TRIES; tries += 1) {
    const seen = await readDocument(changing, path, 'write').catch((error: unknown) => {
      throw unsure ? notKnown(changing, path, error) : error;
    });
    if (unsure && seen?.document.change === wanted.change) return toSet(deps, wanted, unsure.seen);
    // There is no telling any more whether this writer's value was set for a moment.
    if (unsure && only && seen?.index !== unsure.seen?.index) throw notKnown(changing, path, unsure.error);
    const before = stillThere(deps, seen);
    if (!isAsked(only, before)) return { kind: 'refused', ...(before && { before }) };
    const isSame = before?.value === request.value && !request.touch;
    if (isSame && before.until === wanted.until) return { kind: 'unchanged', state: before };
    const state = isSame ? withEnd(before, wanted.until) : wanted;
    const sent = await trySend(changing, {
      path,
      steps: [
        {
          means: 'changed',
          operation: {
            verb: 'cas',
            key: stateKey(prefix, path),
            value: encodeState(state),
            index: seen?.index ?? 0,
          },
        },
      ],
    });
    if (sent.kind === 'done') return isSame ? { kind: 'extended', state } : toSet(deps, state, seen);
    if (sent.kind === 'unsure') unsure = { seen, error: sent.error };
    await pause(deps, tries, signal);
  }
  if (unsure) throw notKnown(changing, path, unsure.error);
  throw keepsChanging(changing, path);
}

/** Ends a state now. @returns what was there; undefined: nothing was, or it was past its end. */
export async function deleteState(changing: Changing, path: string): Promise<StateDocument | undefined> {
  const { deps, signal } = changing;
  let unsure: { readonly before: StateDocument | undefined; readonly error: unknown } | undefined;
  for (let tries = 1; tries <= TRIES; tries += 1) {
    const seen = await readDocument(changing, path, 'write').catch((error: unknown) => {
      throw unsure ? notKnown(changing, path, error) : error;
    });
    if (!seen) return unsure?.before;
    const before = stillThere(deps, seen);
    const steps = removeSeen(stateKey(changing.prefix, path), seen.index);
    const sent = await trySend(changing, { path, steps });
    if (sent.kind === 'done') return before;
    if (sent.kind === 'unsure') unsure = { before, error: sent.error };
    await pause(deps, tries, signal);
  }
  throw unsure ? notKnown(changing, path, unsure.error) : keepsChanging(changing, path);
}

/** Deletes every state that is past its end. @returns their paths. */
export async function pruneStates(changing: Changing): Promise<readonly string[]> {
  const { deps } = changing;
  const pruned: string[] = [];
  for (const { path, key, document, index } of await listDocuments(changing, '', 'write')) {
    if (leftOfState(document, deps.clock.earliest()) > 0) continue;
    const sent = await trySend(changing, { path, steps: removeSeen(key, index) });
    if (sent.kind === 'unsure') throw notKnown(changing, path, sent.error);
    // A refusal means that another writer has set the state again.
    if (sent.kind === 'done') pruned.push(path);
  }
  return pruned;
}

function newDocument({ clock }: Deps, { value, by, run, ttlMs, newId }: SetRequest): StateDocument {
  return {
    value,
    change: newId(),
    by,
    at: new Date(clock.now()).toISOString(),
    ...(run !== undefined && { run }),
    ...(ttlMs !== undefined && { until: new Date(clock.latest() + ttlMs).toISOString() }),
  };
}

/** Keeps the change id and sets another expiry, so that watchers do not see a change. */
function withEnd(before: StateDocument, until: string | undefined): StateDocument {
  const { value, change, by, at, run, cause } = before;
  const rest = { ...(run !== undefined && { run }), ...(cause && { cause }), ...(until && { until }) };
  return { value, change, by, at, ...rest };
}

const stillThere = ({ clock }: Deps, seen: Seen | undefined): StateDocument | undefined =>
  seen && leftOfState(seen.document, clock.earliest()) > 0 ? seen.document : undefined;

function isAsked(only: SetRequest['only'], before: StateDocument | undefined): boolean {
  if (only === undefined) return true;
  return only.if === 'absent' ? before === undefined : before?.value === only.value;
}

function toSet(deps: Deps, state: StateDocument, seen: Seen | undefined): SetResult {
  const before = stillThere(deps, seen);
  return { kind: 'set', state, ...(before && { before }) };
}

const removeSeen = (key: string, index: number): Step<'changed'>[] => [
  { means: 'changed', operation: { verb: 'check-index', key, index } },
  { means: 'changed', operation: { verb: 'delete-cas', key, index } },
];

type Sent =
  | { readonly kind: 'done' }
  | { readonly kind: 'changed' }
  /** The answer was lost. */
  | { readonly kind: 'unsure'; readonly error: RunlockError };

async function trySend(
  { consul, prefix, signal }: Changing,
  { path, steps }: { readonly path: string; readonly steps: readonly Step<'changed'>[] },
): Promise<Sent> {
  try {
    const result = await send(consul, steps, { signal, rule: stateRule(prefix, path, 'write') });
    return { kind: result.kind === 'done' ? 'done' : 'changed' };
  } catch (error) {
    if (isTransient(error)) return { kind: 'unsure', error };
    throw error;
  }
}

/** Consul stopped answering between the change and the look at it. */
function notKnown({ prefix }: Changing, path: string, error: unknown): unknown {
  if (!isRunlockError(error)) return error;
  const message = `${error.message}; whether ${path} was changed is unknown: check with '${hint(prefix, 'state', 'get', path)}'`;
  return new RunlockError(error.code, message, { cause: error });
}

function keepsChanging({ prefix }: Changing, path: string): RunlockError {
  const message = `${path} keeps changing; see '${hint(prefix, 'state', 'watch', path)}' and try again`;
  return new RunlockError('refused', message);
}
