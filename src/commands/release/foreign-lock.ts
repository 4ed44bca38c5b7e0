/** A slot whose lock a session holds that is not the run's: only a hand takes it, and nothing that runlock does ends it. */
import type { Entry } from '../../consul/consul.ts';
import { RunlockError } from '../../errors.ts';
import { hint } from '../../text/suggested-command.ts';
import { decodeLockMark } from '../../lock/records.ts';
import type { Claim } from '../../lock/records.ts';
import { forced } from './forced.ts';
import type { Target } from './released.ts';

interface Locked {
  /** Those of the slot at least, read at one moment. */
  readonly entries: readonly Entry[];
  readonly slot: number;
  readonly claim: Claim;
  /** What was done before that; nothing unless given. */
  readonly done?: string;
}

/** @throws RunlockError `refused` where such a session holds the lock: nobody would ever say that the run is gone. */
export function refuseForeign({ keys, options }: Target, { entries, slot, claim, done }: Locked): void {
  const key = keys.lock(slot);
  const lock = entries.find((entry) => entry.key === key);
  if (lock?.session === undefined || runOf(lock) === claim.run) return;
  const { prefix, group, force } = options;
  const again = force ? forced({ options }, claim) : hint(prefix, 'release', group, '--owner', claim.node);
  throw new RunlockError(
    'refused',
    `${done ?? 'nothing was cleared'}: a session that is not the run of ${claim.node} (${lock.session}) holds ${key}, and slot ${slot} of ${group} can't be given back meanwhile; find out who made that session ('consul kv get -detailed ${key}'), let go of the key with 'consul kv delete ${key}', then use '${again}' once more`,
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
