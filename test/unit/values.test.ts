import { describe, expect, test } from 'vitest';
import { RunlockError } from '../../src/errors.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import type { Claim, NodeMark } from '../../src/lock/records.ts';
import { comeBack, grant, takeOver } from '../../src/lock/transactions.ts';
import {
  durationOr,
  parseCodes,
  parseDuration,
  parseFlag,
  parseGroup,
  parseHold,
  parseNode,
  parsePositiveDuration,
  parseSessionTtl,
  wholeNumber,
} from '../../src/cli/values.ts';

const [second, minute, hour] = [1_000, 60_000, 3_600_000];

/** Expects wrong usage, said in one line that matches. */
function expectUsage(parse: () => unknown, pattern: RegExp): void {
  let error: unknown;
  try {
    parse();
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(RunlockError);
  expect(error).toMatchObject({ code: 'usage', message: expect.stringMatching(pattern) as string });
  expect((error as Error).message).not.toContain('\n');
}

describe('a duration', () => {
  test.each([
    ['0', 0],
    ['0s', 0],
    ['90s', 90 * second],
    ['10m', 10 * minute],
    ['1h30m', 90 * minute],
    ['1h0m5s', hour + 5 * second],
    ['1.5h', 90 * minute],
    ['.5s', 500],
    ['1.s', second],
    ['250ms', 250],
    ['2s500ms', 2_500],
    ['1500us', 1.5],
    ['1500µs', 1.5],
    ['2000000ns', 2],
    ['8784h', 366 * 24 * hour],
    ['2d', 48 * hour],
    ['1w', 7 * 24 * hour],
    ['5d3h', 123 * hour],
    ['1w1d1h1m', 8 * 24 * hour + hour + minute],
    ['.5d', 12 * hour],
    ['52w', 364 * 24 * hour],
  ])('%s is %d ms', (text, ms) => {
    expect(parseDuration(text)).toBeCloseTo(ms, 9);
  });

  test.each([
    '',
    ' ',
    '5',
    '-5s',
    '5 s',
    ' 5s',
    '5s ',
    '5D',
    '5dw',
    '1y',
    's',
    '1h 30m',
    '1h30',
    'x5s',
    '5sx',
    '1e3s',
    '00',
    'forever',
  ])('is not %j', (text) => {
    expectUsage(() => parseDuration(text), /^not a duration; write it like 90s, 10m, 1h30m or 2d$/);
  });

  test('is no longer than a year', () => {
    expectUsage(() => parseDuration('8785h'), /longer than a year/);
    expectUsage(() => parseDuration('53w'), /longer than a year/);
    expectUsage(() => parseDuration(`${'9'.repeat(400)}w`), /longer than a year/);
    expectUsage(() => parseDuration(`${'9'.repeat(400)}h`), /longer than a year/);
    expect(parseDuration('366d')).toBe(366 * 24 * 3_600 * second);
  });

  test('that is too long is told of forever only where that is one of the words', () => {
    expectUsage(() => parseDuration('400d'), /^longer than a year; 366d is the most$/);
    expectUsage(() => durationOr('start')('400d'), /^longer than a year; 366d is the most$/);
    expectUsage(() => durationOr('forever')('400d'), /^longer than a year; use 'forever'$/);
  });

  test('or a word, where one is allowed', () => {
    const parse = durationOr('forever', 'none');
    expect(parse('forever')).toBe('forever');
    expect(parse('none')).toBe('none');
    expect(parse('90s')).toBe(90 * second);
    expectUsage(() => parse('never'), /^not a duration; write it like 90s, .*, or forever, or none$/);
    expectUsage(() => parse('FOREVER'), /not a duration/);
    expectUsage(() => parse('5'), /not a duration/);
    expectUsage(() => parse(''), /not a duration/);
  });

  test.each(['0', '0s'])('of no time at all is refused where there must be some: %s', (text) => {
    expectUsage(() => parsePositiveDuration(text), /^must be greater than 0$/);
  });

  test('of less than a millisecond is refused there too, and not called 0', () => {
    expectUsage(() => parsePositiveDuration('999us'), /^must be at least 1ms$/);
  });

  test('of a millisecond is some time', () => {
    expect(parsePositiveDuration('1ms')).toBe(1);
  });
});

describe('a hold', () => {
  test.each([
    ['forever', 'forever'],
    ['none', 'none'],
    ['0', 'none'],
    ['0s', 'none'],
    ['4h', 4 * hour],
  ])('%s is %s', (text, hold) => {
    expect(parseHold(text)).toBe(hold);
  });

  test.each(['', 'no', '4', '-1s'])('is not %j', (text) => {
    expectUsage(() => parseHold(text), /duration/);
  });
});

describe('a session TTL', () => {
  test.each([
    ['10s', 10 * second],
    ['1m', minute],
    ['1m5s', 65 * second],
    ['24h', 24 * hour],
  ])('%s is what Consul takes', (text, ms) => {
    expect(parseSessionTtl(text)).toBe(ms);
  });

  test.each(['9s', '9999ms', '10500ms', '24h1s', '0'])('%s is not', (text) => {
    expectUsage(() => parseSessionTtl(text), /whole seconds from 10s to 24h/);
  });
});

const badNames = ['', '.', '..', '.web', '-web', 'a b', 'a..b', 'wéb', 'a\nb', 'a*', 'a%2f', 'web01.', 'a?'];

describe('a group', () => {
  test.each(['default', 'prod/web', 'a/b/c-d_e.f', '_', '0', 'x'.repeat(200)])('can be %s', (text) => {
    expect(parseGroup(text)).toBe(text);
  });

  test.each([
    ...badNames.filter((name) => name !== 'web01.'),
    '/web',
    'web/',
    'a//b',
    'prod/.slot',
    'a/../b',
  ])('cannot be %j', (text) => {
    expect(() => parseGroup(text)).toThrow(/^not a group; write a path like prod\/web/);
  });

  test('has at most 200 characters', () => {
    expectUsage(() => parseGroup('x'.repeat(201)), /^too long \(201 characters\); 200 are allowed/);
  });

  test('has no more levels than one transaction of Consul can ask for', () => {
    const deepest = Array(50).fill('a').join('/');
    expect(parseGroup(deepest)).toBe(deepest);
    expectUsage(() => parseGroup(`${deepest}/a`), /^too deep \(51 levels\); 50 are allowed/);
    const keys = groupKeys('runlock', deepest);
    const seat = { keys, session: 's', slot: 0 };
    const [claim, mark] = [{ node: 'n', run: 'r' } as Claim, {} as NodeMark];
    for (const steps of [grant(seat, claim), takeOver(seat, claim, 1), comeBack(seat, claim, mark, 1)])
      expect(steps.length).toBeLessThanOrEqual(64);
  });
});

describe('a node', () => {
  test.each(['web01', 'web01.example.org', 'WEB_1', '1', 'web01.'])('can be %s', (text) => {
    expect(parseNode(text)).toBe(text);
  });

  test.each([...badNames.filter((name) => name !== 'web01.'), 'a/b'])('cannot be %j', (text) => {
    expect(() => parseNode(text)).toThrow(/^not a node name; /);
  });
});

describe('a whole number', () => {
  const parse = wholeNumber(1, 10);

  test.each([
    ['1', 1],
    ['10', 10],
    ['007', 7],
  ])('%s is %d', (text, number) => {
    expect(parse(text)).toBe(number);
  });

  test.each(['0', '11', '-1', '+1', '1.0', '1e0', '0x1', '', ' 1', 'one', 'Infinity'])(
    'is not %j',
    (text) => {
      expectUsage(() => parse(text), /^not a whole number from 1 to 10$/);
    },
  );
});

describe('a list of exit codes', () => {
  test.each([
    ['', []],
    ['0', [0]],
    ['0,2,213', [0, 2, 213]],
    ['0, 2', [0, 2]],
    ['255', [255]],
  ])('%j is %j', (text, codes) => {
    expect(parseCodes(text)).toEqual(codes);
  });

  test.each(['256', '-1', '0,', ',', '0;2', 'ok', '0 2'])('is not %j', (text) => {
    expectUsage(() => parseCodes(text), /^not a list of exit codes.*like 0,2/);
  });
});

describe('the word for a flag', () => {
  test.each(['1', 't', 'T', 'TRUE', 'true', 'True'])('%s is yes', (text) => {
    expect(parseFlag(text)).toBe(true);
  });

  test.each(['0', 'f', 'F', 'FALSE', 'false', 'False', ''])('%j is no', (text) => {
    expect(parseFlag(text)).toBe(false);
  });

  test.each(['yes', 'no', 'on', 'tRUE', '2'])('%s is neither', (text) => {
    expectUsage(() => parseFlag(text), /^write true or false$/);
  });
});
