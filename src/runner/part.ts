/**
 * What has a part in the start and the end of a run, beside its slots: `--publish`, `--during` and the states of `--when`
 * (states-part.ts); the job of a run (job-part.ts); the trigger that started it (trigger-part.ts). Each is loaded for runs that need it only.
 *
 * A new one is a function that makes a `Part`, listed in `loadParts` (needed.ts). At the start, its steps are in the one
 * transaction that proves that all slots are held, the last thing before the command. At the end, whatever the outcome,
 * its steps are in the one transaction that records the run and releases all slots; where no slot is left to release,
 * its `rest` writes alone what is to be written then. Steps are read anew for each try, and no part sees another's.
 */
import type { Cause } from '../events/events.ts';
import type { Step } from '../consul/txn.ts';
import type { Causes } from '../lock/causes.ts';
import type { Closing } from '../lock/finish.ts';
import type { Limits } from '../lock/release.ts';
import type { SeenKey } from '../lock/transactions.ts';
import type { Ran } from './ran.ts';
import type { HeldSlots } from './slots.ts';

export interface Part {
  /** Called once, before anything is asked for. Undefined: go on. @throws RunlockError: nothing is started. */
  check?(signal: AbortSignal): Promise<Leaving | undefined>;
  /** Known once `check` is through; a longer limit of the run is lowered to this, in milliseconds. */
  timeoutMs?(): number | undefined;
  /** Called after `check`: hears from outside what ends the wait, or the command. */
  follow?(following: Following): void;
  /** Hears the last line of the command's output, each as it comes, where that goes into a file. */
  hearLine?(line: string): void;
  /**
   * Undefined: it has nothing to prove or to write at the start. `conditions`: what those of `--when` rest on, as the
   * last look read it (index 0: the key was not there).
   */
  start?: ((slots: HeldSlots, conditions: readonly SeenKey[]) => StartPart) | undefined;
  /** Undefined: it writes nothing at such an end. */
  end?(slots: HeldSlots, ran: Ran): EndPart | undefined;
}

export interface Following {
  /** Aborts at the end of the run. */
  readonly signal: AbortSignal;
  /** Ends the wait: all slots and tickets are given up. Without effect once the command runs. */
  readonly leave: (why: string) => void;
  /** Ends the command. */
  readonly kill: (cause: Extract<Cause, { kind: 'cancelled' }>) => void;
}

/** One try to start. */
export interface StartTry {
  readonly limits: Limits;
  /** An earlier try was sent, and may have taken effect. */
  readonly isAgain: boolean;
  /** What has led to the run, as a part before this one has found; undefined: none has. */
  readonly causes?: Causes | undefined;
}

export type StartPlan =
  | { readonly kind: 'steps'; readonly steps: readonly Step<string>[] }
  /** An earlier try is seen to have taken effect, all of it: only the slots are proved again. */
  | { readonly kind: 'begun' }
  | Leaving;

/** The run is not to start any more, and that is no fault. */
export interface Leaving {
  readonly kind: 'left';
  /** For people. */
  readonly why: string;
  /** Called once all slots are given up; the run that leaves waits for it. Never throws. */
  readonly after?: () => Promise<void>;
}

/** What the refusal of a step means. */
export type Refusal =
  /** `steps` is asked again: what it reads next decides. */
  | { readonly kind: 'again' }
  /** What a condition rests on has changed: all slots are given up, and the run waits outside again. */
  | { readonly kind: 'changed'; readonly key: string }
  | Leaving;

export interface StartPart {
  /** The rules that a token needs for it; '': none. */
  readonly rule: string;
  /** Reads what it rests on, and says what is to be proved and written now, in at most `room` operations. */
  steps(now: StartTry, room: number): Promise<StartPlan>;
  refused(key: string, now: StartTry): Promise<Refusal>;
  /** It took effect, and the command starts next. @throws: it does not. */
  begun?(): Promise<void>;
  /** What led to the run, known once it has begun; undefined: what led to the run that this one is inside of. */
  causes?(): Causes | undefined;
  /**
   * Takes back what may have been written, for a command that never began. All slots are given up, and their sessions
   * gone, so nothing arrives late. `fault`: why the command could not be started. Never throws.
   */
  undo(fault?: unknown): Promise<void>;
}

export interface EndPart extends Closing {
  /** For a good run that could not be recorded as good: what did not happen, for people. */
  readonly unwritten?: string;
  /** What is unknown if Consul never answers, for people; undefined: nothing that matters to who started the run. */
  readonly unknown?: string;
  /**
   * The slots are released, or are not the run's any more. `ran`: as it is recorded; `isWritten`: what the part had to
   * write went with the release. Never throws.
   */
  rest?(ran: Ran, isWritten: boolean): Promise<void>;
}
