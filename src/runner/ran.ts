/** A command that has ended, and what is recorded of it. */
import type { Causes } from '../lock/causes.ts';
import type { Outcome } from '../lock/records.ts';
import type { Ending } from '../process/command.ts';
import type { Judged } from './gated.ts';
import { exitCodeOf } from './outcome.ts';
import type { HeldSlot } from './slots.ts';

/** A command that has ended, and with it every process of its tree that had to end. */
export interface Ran extends Judged {
  readonly ending: Ending;
  readonly ranMs: number;
  /** Resolves when the guard is gone. */
  readonly disarmed: Promise<void>;
  /** The command succeeded, but the run could not be recorded as good, so nothing was published. */
  readonly unpublished?: string;
  /** Undefined: no trigger has led to it. */
  readonly causes?: Causes | undefined;
}

/** How the run ended, for its record in the group of this slot. */
export function endingOf(
  { waitedMs, grant }: HeldSlot,
  { ending, told, ranMs, leftOn, causes }: Ran,
  outcome: Outcome,
) {
  // Omit the exit code of a command that succeeded before a signal ended the run: the code would suggest success.
  const code = told === undefined && { exitCode: exitCodeOf(ending) };
  return { outcome, ...code, waitedMs, ranMs, ...(leftOn && { leftOn }), causes, from: grant.owner.index };
}
