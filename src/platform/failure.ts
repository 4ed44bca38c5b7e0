/** Turns an error into the event to log and the exit status. */
import { RunlockError, errorCode, exitStatus } from '../errors.ts';
import type { RunEvent } from '../events/events.ts';
import { shortageIn } from './shortage.ts';

export interface Failure {
  readonly event: RunEvent;
  /** Set for a bug, and only with -v. */
  readonly stack: string | undefined;
  readonly status: number;
}

export function failureOf(error: unknown, { isVerbose }: { readonly isVerbose: boolean }): Failure {
  const isBug = errorCode(error) === 'bug';
  // A shortage of system resources is not a bug.
  const shortage = isBug ? shortageIn(error) : undefined;
  if (shortage !== undefined) {
    const short = new RunlockError('config', `${messageOf(error)}: ${shortage}`);
    return failureOf(short, { isVerbose });
  }
  const stack = isBug && isVerbose && error instanceof Error ? error.stack : undefined;
  const detail = { fault: messageOf(error) };
  return {
    event: { event: 'error', code: errorCode(error), ...(stack !== undefined && { stack }), detail },
    stack,
    status: exitStatus(error),
  };
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

/** For output that could not be written in full, so that part of a report is not taken for all of it. */
export function unwritten(fault: NodeJS.ErrnoException): RunlockError {
  if (fault.code === 'EBADF') {
    const closed =
      'stdout is closed, so nothing could be printed; leave it open, or send it to a file or to /dev/null';
    return new RunlockError('unwritten', closed, { cause: fault });
  }
  const message = `stdout could not be written (${fault.message}), so the output is incomplete; free some space, then check again`;
  return new RunlockError('unwritten', message, { cause: fault });
}
