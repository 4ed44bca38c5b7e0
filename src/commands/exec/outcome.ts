/** How a run ended: the command's own end, and what ended it. Pure. */
import { constants } from 'node:os';
import type { Ending } from '../../process/command.ts';
import { assertNever } from '../../errors.ts';
import type { Outcome } from '../../lock/records.ts';
import type { CodeMeanings } from './known-exit-codes.ts';
import type { Cause } from '../../events/events.ts';

/**
 * By then a signal that the terminal sent to runlock and to the command has reached both. A command that ends this soon
 * after it has ended by it, whatever its status says.
 */
export const SIGNAL_MS = 100;

/** A signal that was typed at the command and runlock alike. */
export interface Typed {
  readonly signal: NodeJS.Signals;
  readonly atMs: number;
}

export interface CommandEnd {
  readonly ending: Ending;
  readonly atMs: number;
  readonly meanings: CodeMeanings;
}

/** Whether the command ended by a signal that was typed: its status says so, or it ended at once. */
export function isEndOf({ signal, atMs }: Typed, { ending, atMs: endedMs, meanings }: CommandEnd): boolean {
  if (ending.kind === 'signalled') return ending.signal === signal || endedMs - atMs <= SIGNAL_MS;
  const codes = [128 + constants.signals[signal], meanings.signals?.[signal]];
  return codes.includes(ending.code) || endedMs - atMs <= SIGNAL_MS;
}

/** The command's own code; 128 and its signal's number where a signal ended it, as a shell says it. */
export function exitCodeOf(ending: Ending): number {
  if (ending.kind === 'exited') return ending.code;
  const { signal } = ending;
  return 128 + (typeof signal === 'number' ? signal : constants.signals[signal]);
}

export const isOk = (ending: Ending, meanings: CodeMeanings) =>
  ending.kind === 'exited' && meanings.ok.includes(ending.code);

export function outcomeOf(ending: Ending, cause: Cause | undefined, meanings: CodeMeanings): Outcome {
  switch (cause?.kind) {
    case 'evicted':
      return 'evicted';
    case 'lost':
    case 'cut-off':
      return 'lost';
    case 'timed-out':
      return 'timed-out';
    case 'signal':
    case undefined:
      break;
    default:
      return assertNever(cause);
  }
  if (isOk(ending, meanings)) return 'succeeded';
  if (ending.kind === 'exited' && meanings.reboot.includes(ending.code)) return 'rebooting';
  return cause ? 'interrupted' : 'failed';
}
