/** The lock of services' gates: who looks at them and goes out of service holds it, alone among all who do. */
import { isTransient } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import { watchUntil } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import type { Deps } from '../platform/deps.ts';
import { RunlockError } from '../errors.ts';
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { holdsGates, lockGates } from '../lock/transactions.ts';
import { send } from '../consul/txn.ts';

interface Effects {
  readonly consul: Consul;
  readonly deps: Deps;
}

/** Short: an entry takes moments, and one that was killed should not keep the others long. */
export const LOCK_TTL_MS = 10_000;
const RETRY_MS = 300;
const AGAIN: Growth = { shortestMs: RETRY_MS, longestMs: 5_000 };
/** How long Consul is asked again whether the lock is held. */
const CHECK_MS = 10_000;

export interface GateLock {
  readonly keys: readonly string[];
  readonly session: string;
}

const ruleFor = (keys: readonly string[]) =>
  keys.map((key) => `key "${key}" { policy = "write" }`).join(', ');

/** All of them, or none: so nobody waits for one while he holds another. */
export async function lockAll(
  { consul, deps }: Effects,
  { keys, session, run, onBusy }: GateLock & { run: string; onBusy?: (by: LockedBy | undefined) => void },
  signal: AbortSignal,
): Promise<void> {
  // A transaction of nothing is none that Consul answers: a node that offers no service takes nobody's gate.
  if (keys.length === 0) return;
  for (let failures = 0; ;) {
    const result = await send(consul, lockGates(keys, session, run), { signal, rule: ruleFor(keys) }).catch(
      (error: unknown) => {
        // To lock twice with one session does no harm.
        if (isTransient(error)) return undefined;
        throw error;
      },
    );
    if (result?.kind === 'done') {
      onBusy?.(undefined);
      return;
    }
    if (result?.obstacle === 'session') throw sessionLost();
    if (result) await untilFree(consul, result.key, { signal, onBusy });
    else await deps.clock.sleep(growingMs(failures++, AGAIN, deps.random), { signal });
  }
}

/** Who goes out of service by this key. */
export interface LockedBy {
  readonly key: string;
  /** Undefined: the key does not say. */
  readonly run: string | undefined;
}

async function untilFree(
  consul: Consul,
  key: string,
  { signal, onBusy }: { signal: AbortSignal; onBusy: ((by: LockedBy) => void) | undefined },
): Promise<void> {
  const read = (past: Past) => consul.get(key, { ...past, signal, rule: ruleFor([key]) });
  await watchUntil(read, ({ entry }) => {
    if (entry?.session === undefined) return true;
    onBusy?.({ key, run: /"run":"([\w-]+)"/.exec(entry.value)?.[1] });
    return undefined;
  });
}

export interface Proof {
  /** For so many whole milliseconds the lock is held for certain: a change must have been made by then. */
  readonly leftMs: () => number;
  /** Throws when that is over. */
  readonly check: () => void;
}

/**
 * The lock is held now, but not for ever: a process that was stopped goes on where it was, with a look that is no longer
 * true, when somebody else may have it.
 */
export async function proveLock(effects: Effects, lock: GateLock, signal: AbortSignal): Promise<Proof> {
  const { clock } = effects.deps;
  const provedMs = await checkLock(effects, lock, signal);
  const leftMs = () => Math.max(0, Math.floor(provedMs + LOCK_TTL_MS - clock.monotonicMs()));
  const check = () => {
    signal.throwIfAborted();
    if (leftMs() === 0) throw sessionLost();
  };
  return { leftMs, check };
}

/**
 * A process that was stopped for long may have lost its lock before it took the node out.
 * @returns when it was still held, in monotonic milliseconds.
 */
export async function checkLock(
  { consul, deps }: Effects,
  { keys, session }: GateLock,
  signal: AbortSignal,
): Promise<number> {
  const startedMs = deps.clock.monotonicMs();
  for (;;) {
    const sentMs = deps.clock.monotonicMs();
    if (keys.length === 0) return sentMs;
    try {
      const held = await send(consul, holdsGates(keys, session), { signal, rule: ruleFor(keys) });
      if (held.kind === 'refused') throw sessionLost();
      return sentMs;
    } catch (error) {
      // It changes nothing, so it may be asked again.
      if (!isTransient(error) || deps.clock.monotonicMs() - startedMs >= CHECK_MS) throw error;
    }
    await deps.clock.sleep(RETRY_MS, { signal });
  }
}

export const sessionLost = () => new RunlockError('session-lost', 'the lock of the gate was lost');
