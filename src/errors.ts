/**
 * The errors that end a command of runlock, as a closed set. Expected outcomes (a slot was lost, the command failed) are
 * unions in the modules that produce them.
 */
export type ErrorCode =
  | 'usage'
  | 'unreachable'
  | 'no-leader'
  | 'overloaded'
  | 'not-consul'
  | 'bug'
  | 'busy'
  | 'forbidden'
  | 'config'
  | 'incompatible'
  | 'refused'
  | 'session-lost'
  | 'unwritten'
  | 'not-executable'
  | 'not-found';

/** The one table from error code to exit status (sysexits(3), env(1), timeout(1)). */
const exitStatuses: Record<ErrorCode, number> = {
  usage: 64,
  unreachable: 69,
  'no-leader': 69,
  overloaded: 69,
  'not-consul': 69,
  bug: 70,
  unwritten: 74,
  busy: 75,
  forbidden: 77,
  config: 78,
  incompatible: 78,
  refused: 75,
  'session-lost': 69,
  'not-executable': 126,
  'not-found': 127,
};

/** Exit statuses of `exec` without an error: the command ran, and ended this way. */
export const EXIT_LOST = 79;
export const EXIT_UNHEALTHY = 80;
/** The job of the run was stopped, or does not want this node any more: nothing was started, or the command was killed. */
export const EXIT_STOPPED = 81;
export const EXIT_TIMED_OUT = 124;
/** The health gate is closed; the same status as busy. */
export const EXIT_CLOSED = 75;

/** An error whose message says what is wrong, where, and what to do next. */
export class RunlockError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'RunlockError';
    this.code = code;
  }
}

/** Whether `error` is a RunlockError, with one of `codes` if any are given. */
export function isRunlockError(error: unknown, ...codes: ErrorCode[]): error is RunlockError {
  return error instanceof RunlockError && (codes.length === 0 || codes.includes(error.code));
}

/** Whether `error` comes from `AbortSignal.timeout`. */
export function isTimeout(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'TimeoutError';
}

/** The message of an error as part of a sentence, without its class. */
export function reasonOf(error: unknown): string {
  if (isTimeout(error)) return 'no answer in time';
  return error instanceof Error ? error.message : String(error);
}

/** Hides user and password in an address. Passwords may contain an `@` or a slash that should have been encoded. */
export function withoutUser(address: string): string {
  return address.startsWith('unix://')
    ? address
    : address.replace(/^([A-Za-z][A-Za-z0-9+.-]*:\/\/)?.*@/s, '$1…@');
}

/** The code of `error`; any error that is not a RunlockError is a bug. */
export function errorCode(error: unknown): ErrorCode {
  return error instanceof RunlockError ? error.code : 'bug';
}

/** The exit status for `error`; any error that is not a RunlockError is a bug. */
export function exitStatus(error: unknown): number {
  return exitStatuses[errorCode(error)];
}

/** The exit status for an error of this code. */
export const exitStatusOf = (code: ErrorCode): number => exitStatuses[code];

/** Ends a `switch` over a union: a missing case fails the type check. */
export function assertNever(value: never): never {
  throw new RunlockError(
    'bug',
    `unexpected value ${JSON.stringify(value)}; please report this as a bug in runlock`,
  );
}
