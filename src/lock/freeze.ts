/** An operator's stop sign on a group or one of its ancestors: what it is to a run, and how an operator changes it. */
import { watchUntil } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import type { RunContext, Blocked, Progress } from './context.ts';
import { trySend, ask } from './context.ts';
import { parseKey } from './keys.ts';
import { decodeFreeze, freezeInForce, leftOf } from './records.ts';
import type { Freeze } from './records.ts';
import { removeSeen } from './transactions.ts';
import { FIRST_CONTACT, isTransient } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import type { Deps, Waiting } from '../platform/deps.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import { hint } from '../text/suggested-command.ts';
import { pause } from '../consul/retry.ts';
import { send } from '../consul/txn.ts';
import type { Step } from './transactions.ts';

/** Waits until the freeze at `key` is gone; the first to meet one past its end deletes it. */
export async function untilThawed(context: RunContext, key: string, progress: Progress): Promise<void> {
  const { consul, deps, keys } = context;
  const at = frozenGroup(context, key);
  let saidIndex: number | undefined;
  let leftMs = 0;
  const read = (past: Past) => {
    const limits = past.index === undefined ? ask(progress) : { ...past, signal: progress.either };
    return consul.get(key, { ...limits, rule: keys.rule });
  };
  const decide = async ({ entry }: Awaited<ReturnType<typeof read>>) => {
    if (!entry) return true;
    const freeze = decodeFreeze(entry);
    leftMs = leftOf(freeze, deps.clock.earliest());
    if (leftMs <= 0) {
      await trySend(context, removeSeen(key, entry.modifyIndex, 'freeze'), progress.signal);
      return true;
    }
    progress.blocked = { kind: 'frozen', at, freeze };
    progress.patience.throwIfAborted();
    if (entry.modifyIndex !== saidIndex) emitFrozen(context, at, freeze);
    saidIndex = entry.modifyIndex;
    return undefined;
  };
  // Nothing changes in Consul when a freeze ends by itself.
  await watchUntil(read, decide, { waitMs: () => leftMs });
}

/** '' for the root. */
const frozenGroup = ({ keys }: RunContext, key: string) => parseKey(keys.root, key)?.group ?? '';

function emitFrozen({ deps, keys, run }: RunContext, at: string, { by, reason, until }: Freeze): void {
  const who = { group: keys.group, node: run.node, run: run.id };
  deps.emit({ event: 'frozen', ...who, at, by, reason, until, detail: { then: 'waits' } });
}

/** The freeze that stops the group now, if one does: its own, else its nearest ancestor's. */
export async function findFreeze(
  context: RunContext,
  waiting: Waiting,
  timeoutMs: number,
): Promise<Extract<Blocked, { kind: 'frozen' }> | undefined> {
  const { consul, deps, keys } = context;
  const options = { ...ask(waiting), rule: keys.rule, timeoutMs };
  const found = await Promise.all(keys.freezes.map((key) => consul.get(key, options)));
  const read = (key: string) => {
    const entry = found[keys.freezes.indexOf(key)]?.entry;
    return entry && decodeFreeze(entry);
  };
  const inForce = freezeInForce(keys.freezes, read, deps.clock.earliest());
  return inForce && { kind: 'frozen', at: frozenGroup(context, inForce.key), freeze: inForce.freeze };
}

/** A freeze that an operator reads or changes. */
export interface FreezeKey {
  readonly consul: Consul;
  readonly deps: Deps;
  readonly prefix: string;
  readonly key: string;
  /** The group; '' for the root. */
  readonly at: string;
  readonly signal: AbortSignal;
}

/** A freeze as it was read. */
export interface SeenFreeze {
  readonly freeze: Freeze;
  readonly index: number;
  readonly createIndex: number;
}

const ruleOf = (key: string, policy: 'read' | 'write') => `key "${key}" { policy = "${policy}" }`;

/** @throws RunlockError `incompatible`: it can't be read, and stops new runs as any other. */
export async function readFreeze(
  { consul, key, signal }: Pick<FreezeKey, 'consul' | 'key' | 'signal'>,
  policy: 'read' | 'write',
): Promise<SeenFreeze | undefined> {
  const { entry } = await consul.get(key, { signal, ...FIRST_CONTACT, rule: ruleOf(key, policy) });
  if (!entry) return undefined;
  return { freeze: decodeFreeze(entry), index: entry.modifyIndex, createIndex: entry.createIndex };
}

interface Change {
  look(): Promise<SeenFreeze | undefined>;
  /** What changes the key, if it is still as it was seen. Undefined: there is nothing to change. */
  steps(seen: SeenFreeze | undefined): readonly Step[] | undefined;
  /** Whether a change whose answer was lost took effect. */
  isDone(now: SeenFreeze | undefined, before: SeenFreeze | undefined): boolean;
}

/** Somebody else changed the freeze at the same moment, again and again: that is no longer chance. */
const TRIES = 10;

/** Changes it, whatever happens to the answers. Gives what stood there before the change. */
export async function changeFreeze(target: FreezeKey, change: Change): Promise<SeenFreeze | undefined> {
  const { consul, deps, key, signal } = target;
  let unsure: { readonly before: SeenFreeze | undefined; readonly error: unknown } | undefined;
  for (let tries = 1; tries <= TRIES; tries++) {
    const seen = await change.look().catch((error: unknown) => {
      throw unsure ? notKnown(target, error) : error;
    });
    if (unsure && change.isDone(seen, unsure.before)) return unsure.before;
    const steps = change.steps(seen);
    if (!steps) return seen;
    try {
      const result = await send(consul, steps, { signal, rule: ruleOf(key, 'write') });
      if (result.kind === 'done') return seen;
    } catch (error) {
      if (!isTransient(error)) throw error;
      unsure = { before: seen, error };
    }
    await pause(deps, tries, signal);
  }
  if (unsure) throw notKnown(target, unsure.error);
  throw new RunlockError('refused', `${key} keeps changing; check '${statusOf(target)}' and try again`);
}

/** Consul stopped answering between the change and the look at it. */
function notKnown(target: FreezeKey, error: unknown): unknown {
  if (!isRunlockError(error)) return error;
  const message = `${error.message}; whether ${target.key} was changed is unknown: check with '${statusOf(target)}'`;
  return new RunlockError(error.code, message, { cause: error });
}

const statusOf = ({ prefix, at }: FreezeKey) => hint(prefix, 'status', ...(at === '' ? [] : [at]));
