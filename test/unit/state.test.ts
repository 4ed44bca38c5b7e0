// What a state's document and path are, and when it has ended.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkValue, decodeState, encodeState, leftOfState, toValue } from '../../src/state/document.ts';
import { shortValue } from '../../src/state/words.ts';
import { visible } from '../../src/text/visible.ts';
import { pathFault, pathOf, stateKey, stateRule } from '../../src/state/path.ts';

const moment = fc
  .integer({ min: Date.UTC(2000, 0), max: Date.UTC(2100, 0) })
  .map((ms) => new Date(ms).toISOString());
const document = fc.record(
  {
    ...{ value: fc.string({ unit: 'binary' }), change: fc.uuid(), by: fc.string(), at: moment },
    ...{ run: fc.uuid(), cause: fc.array(fc.string(), { maxLength: 8 }), until: moment },
  },
  { requiredKeys: ['value', 'change', 'by', 'at'] },
);

test('a document is read as it was written, whatever its value', () => {
  fc.assert(
    fc.property(document, (written) => {
      expect(decodeState({ key: 'k', value: encodeState(written) })).toMatchObject(written);
    }),
  );
});

test.each([
  ['no JSON', 'x'],
  ['another version', '{"v":0}'],
  ['no value', '{"v":1,"change":"c","by":"b","at":"2026-01-01T00:00:00Z"}'],
  ['a number', '{"v":1,"value":1,"change":"c","by":"b","at":"2026-01-01T00:00:00Z"}'],
  ['no time', '{"v":1,"value":"x","change":"c","by":"b","at":"soon"}'],
  ['an end that is none', '{"v":1,"value":"x","change":"c","by":"b","at":"2026-01-01T00:00:00Z","until":9}'],
])('%s is no state, and its key is named', (_name, value) => {
  expect(() => decodeState({ key: 'runlock/.state/a/.value', value })).toThrow(
    /^runlock\/\.state\/a\/\.value: /,
  );
});

describe('a path', () => {
  const segment = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_-]{0,8}$/);
  const path = fc.array(segment, { minLength: 1, maxLength: 5 }).map((parts) => parts.join('/'));

  test('is what its key says', () => {
    fc.assert(
      fc.property(path, (one) => {
        expect(pathOf('runlock', stateKey('runlock', one))).toBe(one);
      }),
    );
  });

  test('has a key below which no other path has one', () => {
    fc.assert(
      fc.property(path, path, (one, other) => {
        fc.pre(one !== other);
        expect(stateKey('p', other).startsWith(stateKey('p', one))).toBe(false);
      }),
    );
  });

  test.each(['', '/', 'a/', '/a', 'a//b', '.a', 'a/.b', 'a/..', 'a b', 'a:b', 'ü', 'a'.repeat(201)])(
    '%j is none',
    (wrong) => expect(pathFault(wrong)).toBeDefined(),
  );

  test.each([
    ['db/schema', 'key_prefix "p/.state/db/" { policy = "write" }'],
    ['a/b/c', 'key_prefix "p/.state/a/b/" { policy = "write" }'],
    ['schema', 'key_prefix "p/.state/schema/" { policy = "write" }'],
  ])('%s needs the right of its folder', (one, rule) => {
    expect(stateRule('p', one, 'write')).toBe(rule);
    expect(stateKey('p', one).startsWith(/"(.*?)"/.exec(rule)?.[1] ?? '?')).toBe(true);
  });

  test.each(['runlock/.state/a', 'runlock/.state/.value', 'runlock/.state/a/.open', 'other/.state/a/.value'])(
    '%s is no key of one',
    (key) => expect(pathOf('runlock', key)).toBeUndefined(),
  );
});

describe('a value', () => {
  test('has 4,096 bytes at most, whatever its characters', () => {
    expect(checkValue('ü'.repeat(2_048))).toHaveLength(2_048);
    expect(() => checkValue(`${'ü'.repeat(2_048)}a`)).toThrow('4,097 bytes');
  });

  test('is UTF-8, and keeps a byte order mark', () => {
    expect(toValue(Buffer.from('\uFEFFx'))).toBe('\uFEFFx');
    for (const bytes of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xc0, 0x80]])
      expect(() => toValue(Uint8Array.from(bytes))).toThrow('not UTF-8');
  });
});

describe('a value that is shown on one line', () => {
  const dots = (text: string) => `${text}…`;

  test.each([
    ['as it is up to 60 characters', 'a'.repeat(60), 'a'.repeat(60)],
    ['cut to 60', 'a'.repeat(61), dots('a'.repeat(59))],
    ['in quotes with a space in it', 'a b', "'a b'"],
    ['in quotes where it is empty', '', "''"],
    ['with its line breaks spelled out', 'a\nb', "'a\\nb'"],
    ['never cut inside an escape', `${'a'.repeat(57)}\x1bbbbb`, dots('a'.repeat(57))],
    ['nor inside a spelled-out line break', `${'a'.repeat(58)}\nbbb`, `'${dots('a'.repeat(58))}'`],
    ['never cut inside a character', `${'a'.repeat(58)}🦆bbb`, dots('a'.repeat(58))],
    ['of nothing but escapes', '\x1b'.repeat(99), dots('\\x1b'.repeat(14))],
  ])('is %s', (_name, value, shown) => {
    expect(shortValue(value)).toBe(shown);
  });

  test('is never longer, nor left with half of anything', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 90 }), (value) => {
        const shown = shortValue(value);
        expect(shown.length).toBeLessThanOrEqual(62);
        expect(Buffer.from(shown).toString()).toBe(shown);
        expect(shown).toBe(visible(shown));
      }),
    );
  });
});

test('a state lasts 5 s longer than it says, and without an end for ever', () => {
  const until = '2026-01-01T00:00:00.000Z';
  const endMs = Date.parse(until);
  expect(leftOfState({ until }, endMs)).toBe(5_000);
  expect(leftOfState({ until }, endMs + 5_000)).toBe(0);
  expect(leftOfState({}, endMs)).toBe(Infinity);
});
