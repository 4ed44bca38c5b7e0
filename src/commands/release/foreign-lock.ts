/** A slot whose lock is held by a session that is not the run's. Only a person creates one, and runlock never ends it. */
import type { Entry } from '../../consul/consul.ts';
import { RunlockError } from '../../errors.ts';
import { hint } from '../../text/suggested-command.ts';
import { decodeLockMark } from '../../lock/records.ts';
import type { Claim } from '../../lock/records.ts';
import { forced } from './forced.ts';
import type { Target } from './released.ts';

interface Locked {
  /** At least the slot's entries, read at one moment. */
  readonly entries: readonly Entry[];
  readonly slot: number;
  readonly claim: Claim;
  /** What was done before; default: nothing. */
  readonly done?: string;
}

/** @throws RunlockError `refused` if such a session holds the lock: waiting for the run's end would never stop. */
export function refuseForeign({ keys, options }: Target, { entries, slot, claim, done }: Locked): void {
  const key = keys.lock(slot);
  const lock = entries.find((entry) => entry.key === key);
  if (lock?.session === undefined || runOf(lock) === claim.run) return;
  const { prefix, group, force } = options;
  const again = force ? forced({ options }, claim) : hint(prefix, 'release', group, '--owner', claim.node);
  throw new RunlockError(
    'refused',
    `${done ?? 'nothing was cleared'}: session ${lock.session}, which does not belong to the run of ${claim.node}, holds ${key}, so slot ${slot} of ${group} can't be released; find out who created the session ('consul kv get -detailed ${key}'), delete the key with 'consul kv delete ${key}', then run '${again}' again`,
  );
}

/** Undefined: runlock did not write it. */
function runOf(lock: Entry): string | undefined {
  try {
    return decodeLockMark(lock).run;
  } catch {
    return undefined;
  }
}
