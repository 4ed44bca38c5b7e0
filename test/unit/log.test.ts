import { describe, expect, test } from 'vitest';
import type { LogLevel, RunEvent } from '../../src/events/events.ts';
import { createLog, isJournal } from '../../src/platform/console.ts';
import type { LogOptions } from '../../src/platform/console.ts';

function capture(options: Partial<LogOptions> = {}) {
  const lines: string[] = [];
  const log = createLog({
    ...{ level: 'debug', format: 'text', journal: false, color: false, now: () => Date.UTC(2026, 2, 1) },
    ...options,
    write: (line) => lines.push(line),
  });
  return { log, lines };
}

const levels: LogLevel[] = ['error', 'warning', 'info', 'debug'];
/** An event of each level, and its sentence. */
const events: Record<LogLevel, readonly [RunEvent, string]> = {
  error: [{ event: 'error', code: 'busy', detail: { fault: 'too late' } }, 'too late'],
  warning: [
    { event: 'consul-reachable', address: 'localhost:8500' },
    'Consul at localhost:8500 is reachable again',
  ],
  info: [{ event: 'gate-open', node: 'web01' }, 'the gate is open for web01'],
  debug: [{ event: 'consul-fault', code: 'unreachable', detail: { fault: 'no answer' } }, 'no answer'],
};
const eventOf = (level: LogLevel) => events[level][0];
const messageOf = (level: LogLevel) => events[level][1];
const quoting = (fault: string): RunEvent => ({ event: 'consul-fault', code: 'refused', detail: { fault } });

describe('levels', () => {
  test.each(levels.map((level, i) => [level, levels.slice(0, i + 1)] as const))(
    '%s writes itself and what is more important',
    (level, written) => {
      const { log, lines } = capture({ level });
      for (const each of levels) log(eventOf(each));
      expect(lines).toEqual(written.map((each) => `runlock: ${messageOf(each)}`));
    },
  );
});

describe('text', () => {
  test('is one line, whatever the message quotes', () => {
    const { log, lines } = capture();
    log(quoting('first\nrunlock: all is well\r\nthird'));
    expect(lines).toEqual(['runlock: first\\x0arunlock: all is well\\x0d\\x0athird']);
  });

  test('starts with its priority when journald reads it', () => {
    const { log, lines } = capture({ journal: true, color: true });
    for (const level of levels) log(eventOf(level));
    expect(lines).toEqual([
      `<3>runlock: ${messageOf('error')}`,
      `<4>runlock: ${messageOf('warning')}`,
      `<6>runlock: ${messageOf('info')}`,
      `<7>runlock: ${messageOf('debug')}`,
    ]);
  });

  test('lets a message forge neither a priority nor a terminal command', () => {
    const { log, lines } = capture({ journal: true });
    log(quoting('frozen by x\n<0>panic \x1b[2J\r\u202e\x07'));
    expect(lines).toEqual(['<7>runlock: frozen by x\\x0a<0>panic \\x1b[2J\\x0d\\u202e\\x07']);
  });

  test('is coloured on a terminal only, information not at all', () => {
    const { log, lines } = capture({ color: true });
    for (const level of levels) log(eventOf(level));
    expect(lines).toEqual([
      `runlock: \x1b[31m${messageOf('error')}\x1b[39m`,
      `runlock: \x1b[33m${messageOf('warning')}\x1b[39m`,
      `runlock: ${messageOf('info')}`,
      `runlock: \x1b[2m${messageOf('debug')}\x1b[22m`,
    ]);
  });
});

describe('json', () => {
  test('is one object a line, with stable names first, and without what only the sentence needs', () => {
    const { log, lines } = capture({ format: 'json', journal: true, color: true });
    log({ event: 'consul-unreachable', address: 'here:8500', detail: { fault: 'lost\nfound' } });
    expect(lines).toEqual([
      '{"time":"2026-03-01T00:00:00.000Z","level":"warning","message":"lost\\nfound; retrying","event":"consul-unreachable","address":"here:8500"}',
    ]);
  });

  test('carries the same text, and nothing that a terminal obeys', () => {
    const { log, lines } = capture({ format: 'json' });
    log(quoting('a\u009b2J\u202eb\u2028'));
    expect(lines[0]).toContain('a\\u009b2J\\u202eb\\u2028');
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ message: 'a\u009b2J\u202eb\u2028' });
  });
});

describe('isJournal', () => {
  const stat = { dev: 8, ino: 1234 };

  test('is true for the very stream that JOURNAL_STREAM names', () => {
    expect(isJournal({ JOURNAL_STREAM: '8:1234' }, stat)).toBe(true);
    expect(isJournal({ JOURNAL_STREAM: '8:1234' }, { dev: 8n, ino: 1234n })).toBe(true);
  });

  test('is false for a redirected stream, and without journald', () => {
    expect(isJournal({ JOURNAL_STREAM: '8:1235' }, stat)).toBe(false);
    expect(isJournal({ JOURNAL_STREAM: '' }, stat)).toBe(false);
    expect(isJournal({}, stat)).toBe(false);
    expect(isJournal({ JOURNAL_STREAM: '8:1234' }, undefined)).toBe(false);
  });
});

test.each(['text', 'json'] as const)('a step of the way to a slot has no line, as %s', (format) => {
  const lines: string[] = [];
  const write = (line: string) => void lines.push(line);
  const log = createLog({ write, level: 'debug', format, journal: false, color: false, now: () => 0 });
  log({ event: 'first', group: 'web' });
  expect(lines).toEqual([]);
});
