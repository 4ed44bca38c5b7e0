import { describe, expect, test } from 'vitest';
import type { LogLevel } from '../../src/platform/deps.ts';
import { createLog, isJournal } from '../../src/platform/log.ts';
import type { LogOptions } from '../../src/platform/log.ts';

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

describe('levels', () => {
  test.each(levels.map((level, i) => [level, levels.slice(0, i + 1)] as const))(
    '%s writes itself and what is more important',
    (level, written) => {
      const { log, lines } = capture({ level });
      for (const each of levels) log(each, each);
      expect(lines).toEqual(written.map((each) => `runlock: ${each}`));
    },
  );
});

describe('text', () => {
  test('is one line, whatever the message quotes', () => {
    const { log, lines } = capture();
    log('error', 'first\nrunlock: all is well\r\nthird');
    expect(lines).toEqual(['runlock: first\\x0arunlock: all is well\\x0d\\x0athird']);
  });

  test('starts with its priority when journald reads it', () => {
    const { log, lines } = capture({ journal: true, color: true });
    for (const level of levels) log(level, level);
    expect(lines).toEqual([
      '<3>runlock: error',
      '<4>runlock: warning',
      '<6>runlock: info',
      '<7>runlock: debug',
    ]);
  });

  test('lets a message forge neither a priority nor a terminal command', () => {
    const { log, lines } = capture({ journal: true });
    log('info', 'frozen by x\n<0>panic \x1b[2J\r\u202e\x07');
    expect(lines).toEqual(['<6>runlock: frozen by x\\x0a<0>panic \\x1b[2J\\x0d\\u202e\\x07']);
  });

  test('is coloured on a terminal only, information not at all', () => {
    const { log, lines } = capture({ color: true });
    for (const level of levels) log(level, level);
    expect(lines).toEqual([
      ...['runlock: \x1b[31merror\x1b[39m', 'runlock: \x1b[33mwarning\x1b[39m', 'runlock: info'],
      'runlock: \x1b[2mdebug\x1b[22m',
    ]);
  });
});

describe('json', () => {
  test('is one object a line, with stable names first', () => {
    const { log, lines } = capture({ format: 'json', journal: true, color: true });
    log('warning', 'lost\nfound', { event: 'consul-unreachable', tries: 3 });
    expect(lines).toEqual([
      '{"time":"2026-03-01T00:00:00.000Z","level":"warning","message":"lost\\nfound","event":"consul-unreachable","tries":3}',
    ]);
  });

  test('lets no field take the place of time, level or message', () => {
    const { log, lines } = capture({ format: 'json' });
    log('info', 'real', { time: 0, level: 'error', message: 'forged', slot: 0 });
    expect(JSON.parse(lines[0] ?? '')).toEqual({
      ...{ time: '2026-03-01T00:00:00.000Z', level: 'info', message: 'real', slot: 0 },
    });
  });

  test('says errors and big integers too', () => {
    const { log, lines } = capture({ format: 'json' });
    log('info', 'm', { cause: new Error('why'), index: 12n });
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ cause: 'why', index: '12' });
  });

  test('carries the same text, and nothing that a terminal obeys', () => {
    const { log, lines } = capture({ format: 'json' });
    log('info', 'a\u009b2J\u202eb\u2028');
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
