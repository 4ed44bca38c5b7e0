// What ended a command: whether a signal that was typed at it counts, and what the run comes to.
import { describe, expect, test } from 'vitest';
import type { Ending } from '../../src/process/command.ts';
import { SIGNAL_MS, isEndOf, outcomeOf } from '../../src/runner/outcome.ts';
import { signalCodes } from '../../src/runner/outcome.ts';

const exited = (code: number): Ending => ({ kind: 'exited', code });
const meanings = { ok: [0], reboot: [35] };
const LATER_MS = SIGNAL_MS + 1;

const isEnd = (ending: Ending, afterMs: number, { signal = 'SIGINT', tool = 'sh' } = {}) =>
  isEndOf(
    { signal: signal as NodeJS.Signals, atMs: 1_000 },
    { ending, atMs: 1_000 + afterMs, meanings: { ...meanings, signals: signalCodes(tool) } },
  );

describe('a command ended by a signal that was typed', () => {
  test('when the signal killed it, however late', () => {
    expect(isEnd({ kind: 'signalled', signal: 'SIGINT' }, 60_000)).toBe(true);
    expect(isEnd({ kind: 'signalled', signal: 'SIGQUIT' }, 60_000, { signal: 'SIGQUIT' })).toBe(true);
  });

  test('when it ended with 128 and its number', () => {
    expect(isEnd(exited(130), 60_000)).toBe(true);
    expect(isEnd(exited(131), 60_000, { signal: 'SIGQUIT' })).toBe(true);
  });

  test.each([
    ['chef-client', 2],
    ['cinc-client', 2],
    ['ansible-playbook', 99],
    ['ansible', 99],
    ['ansible-pull', 99],
  ])('when it ended with the code that %s has for it: %i', (tool, code) => {
    expect(isEnd(exited(code), 60_000, { tool })).toBe(true);
    expect(isEnd(exited(code), 60_000, { tool: 'sh' })).toBe(false);
    expect(isEnd(exited(code), 60_000, { tool, signal: 'SIGQUIT' })).toBe(false);
  });

  test('when it ended at once, or was quicker than the news of the signal', () => {
    expect(isEnd(exited(3), SIGNAL_MS)).toBe(true);
    expect(isEnd(exited(3), -SIGNAL_MS)).toBe(true);
  });

  test('and not when it went on and ended in its own time', () => {
    expect(isEnd(exited(3), LATER_MS)).toBe(false);
    expect(isEnd(exited(131), LATER_MS)).toBe(false);
    expect(isEnd({ kind: 'signalled', signal: 'SIGSEGV' }, LATER_MS)).toBe(false);
  });
});

describe('a run that a signal ended', () => {
  const signal = { kind: 'signal' } as const;
  test.each([
    [exited(0), 'succeeded'],
    [exited(35), 'rebooting'],
    [exited(5), 'interrupted'],
    [{ kind: 'signalled', signal: 'SIGTERM' } as const, 'interrupted'],
    [{ kind: 'signalled', signal: 'SIGKILL' } as const, 'interrupted'],
  ])('%j: %s', (ending, outcome) => {
    expect(outcomeOf(ending, signal, meanings)).toBe(outcome);
  });

  test('without one, what is not good has failed', () => {
    expect(outcomeOf(exited(130), undefined, meanings)).toBe('failed');
    expect(outcomeOf({ kind: 'signalled', signal: 'SIGKILL' }, undefined, meanings)).toBe('failed');
  });
});
