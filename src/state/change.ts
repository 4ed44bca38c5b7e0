/** Sets and deletes states, even if answers from Consul are lost. */
import { isTransient } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import { pause } from '../consul/retry.ts';
import { send } from '../consul/txn.ts';
import type { Step } from '../consul/txn.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import type { Causes } from '../lock/causes.ts';
import type { Deps } from '../platform/deps.ts';
import { hint } from '../text/suggested-command.ts';
import { leftOfStanding } from './claims.ts';
import { encodeState } from './document.ts';
import type { StateDocument } from './document.ts';
import { stateKey, stateRule } from './path.ts';
import { readDocument, readStored } from './read.ts';
import type { Seen, Unreadable } from './read.ts';

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
  /** Of that run. */
  readonly causes?: Causes | undefined;
  /** Milliseconds; undefined: until it is deleted. */
  readonly ttlMs?: number | undefined;
  /** Set the state only if this is true; undefined: always. */
  readonly only?: { readonly if: 'absent' } | { readonly if: 'value'; readonly value: string } | undefined;
  /** Whether to count as a change even if the value is the same. */
  readonly touch: boolean;
  /** A change's random id. */
  readonly newId: () => string;
}

/** `before`: the previous state, unless it had ended. */
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

/** The last write whose answer was lost, and what was there when it was sent. */
interface Unsure {
  readonly seen: Seen | undefined;
  readonly written: SetResult & { readonly kind: 'set' | 'extended' };
  readonly error: unknown;
}

/**
 * Sets a state, if it is what `only` says.
 * @throws RunlockError `forbidden`, naming the rule; `incompatible`: what is there can't be read; `refused`: the state
 * keeps changing; a transient fault, which says so where nobody knows whether the state was set.
 */
export async function setState(changing: Changing, request: SetRequest): Promise<SetResult> {
  const { deps, prefix, signal } = changing;
  const { path, only } = request;
  const wanted = newDocument(deps, request);
  let unsure: Unsure | undefined;
  for (let tries = 1; tries <= TRIES; tries += 1) {
    const seen = await readDocument(changing, path, 'write').catch((error: unknown) => {
      throw unsure ? notKnown(changing, path, error) : error;
    });
    if (unsure && isWritten(unsure.written.state, seen)) return unsure.written;
    // Another writer was here since. Whether the lost write came before it is unknown, and a second one would undo it.
    if (unsure && seen?.index !== unsure.seen?.index) throw notKnown(changing, path, unsure.error);
    const before = stillThere(deps, seen);
    if (!isAsked(only, before)) return { kind: 'refused', ...(before && { before }) };
    // A state of --during ends with its claim: what is set here must outlast it.
    const isSame = before?.value === request.value && !request.touch && !before.while;
    if (isSame && before.until === wanted.until) return { kind: 'unchanged', state: before };
    const written: Unsure['written'] = isSame
      ? { kind: 'extended', state: withEnd(before, wanted.until) }
      : { kind: 'set', state: wanted, ...(before && { before }) };
    const sent = await trySend(changing, {
      steps: [
        {
          means: 'changed',
          operation: {
            verb: 'cas',
            key: stateKey(prefix, path),
            value: encodeState(written.state),
            index: seen?.index ?? 0,
          },
        },
      ],
      rule: stateRule(prefix, path, 'write'),
    });
    if (sent.kind === 'done') return written;
    if (sent.kind === 'unsure') unsure = { seen, written, error: sent.error };
    await pause(deps, tries, signal);
  }
  if (unsure) throw notKnown(changing, path, unsure.error);
  throw keepsChanging(changing, path);
}

/** The same change with the same end: it is what was sent, or as good. */
const isWritten = (state: StateDocument, seen: Seen | undefined): boolean =>
  seen !== undefined && seen.document.change === state.change && seen.document.until === state.until;

export type DeleteResult =
  /** `before`: what was there; undefined: it could not be read. */
  | { readonly kind: 'deleted'; readonly before: StateDocument | undefined }
  /** Nothing was there, or it was past its end. */
  | { readonly kind: 'not-set' };

/** Ends a state now, also one that this version can't read. @throws as `setState`, without `incompatible`. */
export async function deleteState(changing: Changing, path: string): Promise<DeleteResult> {
  const { deps, prefix, signal } = changing;
  const rule = stateRule(prefix, path, 'write');
  let unsure: { readonly index: number; readonly result: DeleteResult; readonly error: unknown } | undefined;
  for (let tries = 1; tries <= TRIES; tries += 1) {
    const seen = await readStored(changing, path, 'write').catch((error: unknown) => {
      throw unsure ? notKnown(changing, path, error) : error;
    });
    if (!seen) return unsure?.result ?? { kind: 'not-set' };
    // It was set again since. Whether the lost delete came before that is unknown, and a second one would undo it.
    if (unsure && seen.index !== unsure.index) throw notKnown(changing, path, unsure.error);
    const result = whatEnds(deps, seen);
    const stored: SeenKey = { key: stateKey(prefix, path), index: seen.index };
    const sent = await trySend(changing, { steps: removeSeen(stored), rule });
    if (sent.kind === 'done') return result;
    if (sent.kind === 'unsure') unsure = { index: seen.index, result, error: sent.error };
    await pause(deps, tries, signal);
  }
  throw unsure ? notKnown(changing, path, unsure.error) : keepsChanging(changing, path);
}

function whatEnds(deps: Deps, seen: Seen | Unreadable): DeleteResult {
  if ('fault' in seen) return { kind: 'deleted', before: undefined };
  const before = stillThere(deps, seen);
  return before ? { kind: 'deleted', before } : { kind: 'not-set' };
}

function newDocument({ clock }: Deps, { value, by, run, causes, ttlMs, newId }: SetRequest): StateDocument {
  return {
    value,
    change: newId(),
    by,
    at: new Date(clock.now()).toISOString(),
    ...(run !== undefined && { run }),
    ...causes,
    ...(ttlMs !== undefined && { until: new Date(clock.latest() + ttlMs).toISOString() }),
  };
}

/** Keeps the change id and sets another expiry, so that watchers do not see a change. */
function withEnd(before: StateDocument, until: string | undefined): StateDocument {
  const { value, change, by, at, run, cause, published } = before;
  const rest = {
    ...(run !== undefined && { run }),
    ...(cause && { cause }),
    ...(until && { until }),
    ...(published && { published }),
  };
  return { value, change, by, at, ...rest };
}

const stillThere = ({ clock }: Deps, seen: Seen | undefined): StateDocument | undefined =>
  seen && leftOfStanding(seen, clock.earliest()) > 0 ? seen.document : undefined;

function isAsked(only: SetRequest['only'], before: StateDocument | undefined): boolean {
  if (only === undefined) return true;
  return only.if === 'absent' ? before === undefined : before?.value === only.value;
}

/** One key at the index at which it was read. */
export interface SeenKey {
  readonly key: string;
  readonly index: number;
}

/** Removes a key, unless it has changed or is gone. */
export const removeSeen = ({ key, index }: SeenKey): Step<'changed'>[] => [
  { means: 'changed', operation: { verb: 'check-index', key, index } },
  { means: 'changed', operation: { verb: 'delete-cas', key, index } },
];

type Sent =
  | { readonly kind: 'done' }
  /** Nothing was done, because this key has changed. */
  | { readonly kind: 'changed'; readonly key: string }
  /** The answer was lost. */
  | { readonly kind: 'unsure'; readonly error: RunlockError };

export async function trySend(
  { consul, signal }: Changing,
  { steps, rule }: { readonly steps: readonly Step<'changed'>[]; readonly rule: string },
): Promise<Sent> {
  try {
    const result = await send(consul, steps, { signal, rule });
    return result.kind === 'done' ? { kind: 'done' } : { kind: 'changed', key: result.key };
  } catch (error) {
    if (isTransient(error)) return { kind: 'unsure', error };
    throw error;
  }
}

/** Consul stopped answering between the change and the look at it, or the look can't tell. */
function notKnown({ prefix }: Changing, path: string, error: unknown): unknown {
  if (!isRunlockError(error)) return error;
  const message = `${error.message}; whether ${path} was changed is unknown: check with '${hint(prefix, 'state', 'get', path)}'`;
  return new RunlockError(error.code, message, { cause: error });
}

function keepsChanging({ prefix }: Changing, path: string): RunlockError {
  const message = `${path} keeps changing; see '${hint(prefix, 'state', 'watch', path)}' and try again`;
  return new RunlockError('refused', message);
}
