import { describe, expect, test } from 'vitest';
import {
  EXIT_LOST,
  EXIT_TIMED_OUT,
  RunlockError,
  assertNever,
  exitStatus,
  isRunlockError,
} from '../../src/errors.ts';
import type { ErrorCode } from '../../src/errors.ts';

const statuses: Record<ErrorCode, number> = {
  usage: 64,
  unreachable: 69,
  'no-leader': 69,
  overloaded: 69,
  'not-consul': 69,
  'session-lost': 69,
  bug: 70,
  unwritten: 74,
  busy: 75,
  refused: 75,
  forbidden: 77,
  config: 78,
  incompatible: 78,
  'not-executable': 126,
  'not-found': 127,
};

describe('the exit status', () => {
  test.each(Object.entries(statuses) as [ErrorCode, number][])('of %s is %d', (code, status) => {
    expect(exitStatus(new RunlockError(code, 'x'))).toBe(status);
  });

  test.each([new TypeError('x'), 'x', undefined, { code: 'usage' }])(
    'of anything else is 70: a bug',
    (error) => {
      expect(exitStatus(error)).toBe(70);
    },
  );

  test('of a lost lock is 79, of a run that took too long 124', () => {
    expect([EXIT_LOST, EXIT_TIMED_OUT]).toEqual([79, 124]);
  });
});

describe('an error', () => {
  test('keeps its code, its message and its cause', () => {
    const cause = new Error('socket');
    const error = new RunlockError('unreachable', 'no Consul', { cause });
    expect(error).toMatchObject({ name: 'RunlockError', code: 'unreachable', message: 'no Consul', cause });
    expect(error).toBeInstanceOf(Error);
  });

  test('is known by its class and code, not by its looks', () => {
    const error = new RunlockError('busy', 'x');
    expect(isRunlockError(error)).toBe(true);
    expect(isRunlockError(error, 'usage', 'busy')).toBe(true);
    expect(isRunlockError(error, 'usage')).toBe(false);
    expect(isRunlockError(Object.assign(new Error('x'), { code: 'busy' }), 'busy')).toBe(false);
    expect(isRunlockError(undefined)).toBe(false);
  });

  test('of a case that nobody thought of is a bug, and names the value', () => {
    expect(() => assertNever({ kind: 'new' } as never)).toThrow(/\{"kind":"new"\}.*bug/);
  });
});
