/** Reading and changing one freeze key, whatever happens to the answers. */
import { FIRST_CONTACT, isTransient } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import type { Deps } from '../platform/deps.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import { hint } from '../text/suggested-command.ts';
import { pause } from '../consul/retry.ts';
import { decodeFreeze } from './records.ts';
import type { Freeze } from './records.ts';
import { send } from '../consul/txn.ts';
import type { Step } from './transactions.ts';

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
export interface Seen {
  readonly freeze: Freeze;
  readonly index: number;
  readonly createIndex: number;
}

const rule = (key: string, policy: 'read' | 'write') => `key "${key}" { policy = "${policy}" }`;

/** @throws RunlockError `incompatible`: it can't be read, and stops new runs as any other. */
export async function readFreeze(
  { consul, key, signal }: Pick<FreezeKey, 'consul' | 'key' | 'signal'>,
  policy: 'read' | 'write',
): Promise<Seen | undefined> {
  const { entry } = await consul.get(key, { signal, ...FIRST_CONTACT, rule: rule(key, policy) });
  if (!entry) return undefined;
  return { freeze: decodeFreeze(entry), index: entry.modifyIndex, createIndex: entry.createIndex };
}

interface Change {
  look(): Promise<Seen | undefined>;
  /** What changes the key, if it is still as it was seen. Undefined: there is nothing to change. */
  steps(seen: Seen | undefined): readonly Step[] | undefined;
  /** Whether a change whose answer was lost took effect. */
  isDone(now: Seen | undefined, before: Seen | undefined): boolean;
}

/** Somebody else changed the freeze at the same moment, again and again: that is no longer chance. */
const TRIES = 10;

/** What stood there before the change. */
export async function changeFreeze(target: FreezeKey, change: Change): Promise<Seen | undefined> {
  const { consul, deps, key, signal } = target;
  let unsure: { readonly before: Seen | undefined; readonly error: unknown } | undefined;
  for (let tries = 1; tries <= TRIES; tries++) {
    const seen = await change.look().catch((error: unknown) => {
      throw unsure ? notKnown(target, error) : error;
    });
    if (unsure && change.isDone(seen, unsure.before)) return unsure.before;
    const steps = change.steps(seen);
    if (!steps) return seen;
    try {
      const result = await send(consul, steps, { signal, rule: rule(key, 'write') });
      if (result.kind === 'done') return seen;
    } catch (error) {
      if (!isTransient(error)) throw error;
      unsure = { before: seen, error };
    }
    await pause(deps, tries, signal);
  }
  if (unsure) throw notKnown(target, unsure.error);
  throw new RunlockError('refused', `${key} keeps changing; look at '${statusOf(target)}' and try again`);
}

/** Consul stopped answering between the change and the look at it. */
function notKnown(target: FreezeKey, error: unknown): unknown {
  if (!isRunlockError(error)) return error;
  const message = `${error.message}; whether ${target.key} was changed is not known: look at '${statusOf(target)}'`;
  return new RunlockError(error.code, message, { cause: error });
}

const statusOf = ({ prefix, at }: FreezeKey) => hint(prefix, 'status', ...(at === '' ? [] : [at]));
