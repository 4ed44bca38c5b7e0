/**
 * The locks of services' gates: a node holds them while it checks the gates and goes out of service, so that no other
 * can.
 */
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

/**
 * Short, because entering takes moments, and a process that was killed meanwhile should not block the others for
 * long.
 */
export const LOCK_TTL_MS = 10_000;
const RETRY_MS = 300;
const AGAIN: Growth = { shortestMs: RETRY_MS, longestMs: 5_000 };
/** How long to retry asking Consul whether the lock is still held. */
const CHECK_MS = 10_000;

export interface GateLock {
  readonly keys: readonly string[];
  readonly session: string;
}

const ruleFor = (keys: readonly string[]) =>
  keys.map((key) => `key "${key}" { policy = "write" }`).join(', ');

/** Takes all locks or none, so that no node waits for one lock while it holds another. */
export async function lockAll(
  { consul, deps }: Effects,
  { keys, session, run, onBusy }: GateLock & { run: string; onBusy?: (by: LockedBy | undefined) => void },
  signal: AbortSignal,
): Promise<void> {
  // A node that offers no service needs no lock, and Consul does not answer an empty transaction.
  if (keys.length === 0) return;
  for (let failures = 0; ;) {
    const result = await send(consul, lockGates(keys, session, run), { signal, rule: ruleFor(keys) }).catch(
      (error: unknown) => {
        // Trying again is safe: locking twice with one session does no harm.
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

/** The run that holds the lock of a gate. */
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
  /** For how many milliseconds the lock is certainly still held: the change must be made within this time. */
  readonly leftMs: () => number;
  /** Throws when this time is over. */
  readonly check: () => void;
}

/**
 * Proves that the lock is held now, and for how long this is certain. A process that was stopped and continues later
 * would otherwise act on an outdated view of the gate while another node may hold the lock.
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
 * Checks that the lock is still held. A process that was stopped for long may have lost it before it took the node out.
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
      // The check changes nothing, so it is safe to ask again.
      if (!isTransient(error) || deps.clock.monotonicMs() - startedMs >= CHECK_MS) throw error;
    }
    await deps.clock.sleep(RETRY_MS, { signal });
  }
}

export const sessionLost = () => new RunlockError('session-lost', 'the lock of the gate was lost');
