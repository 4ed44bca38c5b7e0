/** What runlock says when it fails, and how it ends. */
import { RunlockError, errorCode, exitStatus } from '../errors.ts';
import { shortageIn } from './shortage.ts';

export interface Failure {
  /** One line. */
  readonly message: string;
  /** Of a bug, and only where it was asked for. */
  readonly stack: string | undefined;
  /** Of its log line. */
  readonly fields: Readonly<Record<string, unknown>>;
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
  const message = `${isBug ? 'a bug in runlock, please report it: ' : ''}${messageOf(error)}`;
  return {
    message: message.replaceAll(/\r?\n/g, ' '),
    stack,
    fields: { event: 'error', code: errorCode(error), ...(stack !== undefined && { stack }) },
    status: exitStatus(error),
  };
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

/** A report that is cut short must not pass for a whole one. */
export function unwritten(fault: Error): RunlockError {
  const message = `stdout could not be written (${fault.message}), so what is there is cut short; make room, and look again`;
  return new RunlockError('unwritten', message, { cause: fault });
}
