/** What runlock says when it fails, and how it ends. */
import { RunlockError, errorCode, exitStatus } from '../errors.ts';
import type { RunEvent } from '../events/events.ts';
import { shortageIn } from './shortage.ts';

export interface Failure {
  readonly event: RunEvent;
  /** Of a bug, and only where it was asked for. */
  readonly stack: string | undefined;
  readonly status: number;
}

export function failureOf(error: unknown, { isVerbose }: { readonly isVerbose: boolean }): Failure {
  const isBug = errorCode(error) === 'bug';
  // What the system was short of is no bug.
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

/** A report that is cut short must not pass for a whole one. */
export function unwritten(fault: NodeJS.ErrnoException): RunlockError {
  if (fault.code === 'EBADF') {
    const closed =
      'stdout is closed, so nothing could be printed; leave it open, or send it to a file or to /dev/null';
    return new RunlockError('unwritten', closed, { cause: fault });
  }
  const message = `stdout could not be written (${fault.message}), so the output is incomplete; free some space, then check again`;
  return new RunlockError('unwritten', message, { cause: fault });
}
