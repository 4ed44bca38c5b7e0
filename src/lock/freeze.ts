/** Freezes of a group or its ancestors: how a run finds one and waits for its end, and how an operator changes one. */
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

/** Waits until the freeze at `key` is gone. The first run that reads an expired freeze deletes it. */
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
    context.nodeTurn?.lend();
    if (entry.modifyIndex !== saidIndex) emitFrozen(context, at, freeze);
    saidIndex = entry.modifyIndex;
    return undefined;
  };
  // Wake when the freeze is due to end, because nothing changes in Consul then.
  await watchUntil(read, decide, { waitMs: () => leftMs });
}

/** '' for the root. */
const frozenGroup = ({ keys }: RunContext, key: string) => parseKey(keys.root, key)?.group ?? '';

function emitFrozen({ deps, keys, run }: RunContext, at: string, { by, reason, until }: Freeze): void {
  const who = { group: keys.group, node: run.node, run: run.id };
  deps.emit({ event: 'frozen', ...who, at, by, reason, until, detail: { then: 'waits' } });
}

/** The freeze that stops the group now, if any: its own, or its nearest ancestor's. */
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

/** @throws RunlockError `incompatible`: the freeze can't be read, but it stops new runs like any other. */
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
  /** The steps that change the key if it has not changed since it was read. Undefined: there is nothing to change. */
  steps(seen: SeenFreeze | undefined): readonly Step[] | undefined;
  /** Whether a change whose answer was lost took effect. */
  isDone(now: SeenFreeze | undefined, before: SeenFreeze | undefined): boolean;
}

/** After this many conflicting changes by others, give up: so many are no coincidence. */
const TRIES = 10;

/**
 * Changes a freeze, and finds out whether the change took effect if an answer is lost. Returns the freeze before it.
 */
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

/** The error when Consul stopped answering after a change was sent and before it could be checked. */
function notKnown(target: FreezeKey, error: unknown): unknown {
  if (!isRunlockError(error)) return error;
  const message = `${error.message}; whether ${target.key} was changed is unknown: check with '${statusOf(target)}'`;
  return new RunlockError(error.code, message, { cause: error });
}

const statusOf = ({ prefix, at }: FreezeKey) => hint(prefix, 'status', ...(at === '' ? [] : [at]));
