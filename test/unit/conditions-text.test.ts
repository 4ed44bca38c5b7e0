// The text of conditions of every kind: nothing is lost in reading it, and what is wrong is named at its place.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseCondition } from '../../src/conditions/parse.ts';
import type { Condition } from '../../src/conditions/parse.ts';

const name = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_-]{0,8}(?:\.[A-Za-z0-9_-]{1,4})?$/);
const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'));
const at = fc.option(path).map((group) => (group === null ? '' : `@${group}`));
const value = fc.string({ unit: 'grapheme', maxLength: 40 });
const sign = fc.constantFrom('=', '!=');

/** The text of each kind, from parts that are right. */
const texts = fc.oneof(
  path.map((state) => `state:${state}`),
  fc
    .tuple(
      path,
      sign,
      value.filter((text) => !text.startsWith('=')),
    )
    .map(([state, equal, text]) => `state:${state}${equal}${text}`),
  fc.tuple(fc.constantFrom('idle', 'blocked', 'frozen'), path).map(([kind, group]) => `${kind}:${group}`),
  fc.constant('frozen:/'),
  fc.tuple(name, at).map(([node, group]) => `active:${node}${group}`),
  fc.tuple(fc.oneof(name, fc.constant('*')), at).map(([node, group]) => `good:${node}${group}`),
  name.map((service) => `healthy:${service}`),
  fc.tuple(name, fc.integer({ min: 1, max: 999_999 })).map(([service, n]) => `healthy:${service}:${n}`),
  name.map((node) => `agent:${node}`),
);

/** What was read, as it would be written. */
function print(condition: Condition): string {
  const { kind, not } = condition;
  const rest = () => {
    switch (condition.kind) {
      case 'state':
        return `${condition.path}${condition.is === undefined ? '' : `${condition.is === 'equal' ? '=' : '!='}${condition.value ?? ''}`}`;
      case 'idle':
      case 'blocked':
      case 'frozen':
        return condition.group === '' ? '/' : condition.group;
      case 'active':
      case 'good':
        return `${condition.node}${condition.group === undefined ? '' : `@${condition.group}`}`;
      case 'healthy':
        return `${condition.service}:${condition.instances}`;
      case 'agent':
        return condition.node;
    }
  };
  return `${not ? 'not:' : ''}${kind}:${rest()}`;
}

/** One instance is meant where none is named. */
const whole = (text: string) => (/^(?:not:)?healthy:[^:]*$/.test(text) ? `${text}:1` : text);

test('each condition is read whole: what was read, printed, is what was written', () => {
  fc.assert(
    fc.property(texts, fc.boolean(), (text, not) => {
      const written = not ? `not:${text}` : text;
      expect(print(parseCondition(written))).toBe(whole(written));
    }),
  );
});

test.each([
  ['state:db/schema==4', "character 17: write one '=': state:db/schema=4"],
  ['not:state:a!==4', "character 14: write one '=': state:a!=4"],
  ['state:a===', "character 9: write one '=': state:a="],
])('%s is refused with what to write', (text, says) => {
  expect(() => parseCondition(text)).toThrow(says);
  expect(parseCondition('state:a=b==c')).toMatchObject({ value: 'b==c' });
});

describe('a wrong condition', () => {
  const placeOf = (text: string): number => {
    try {
      parseCondition(text);
    } catch (error) {
      return Number(/^character (\d+): /.exec((error as Error).message)?.[1]);
    }
    throw new Error(`'${text}' is right`);
  };

  test('is named at the part in which it is wrong, in each part of each kind', () => {
    const wrong = fc.constantFrom(' ', '\n', 'é', '\u0000', '#', '..', '\\');
    // What stands before the part, and after it.
    const parts = fc.constantFrom(
      ...[
        ['state:', ''],
        ['state:', '=1'],
        ['state:a/b/', '/c!=1'],
        ['idle:', ''],
        ['blocked:a/', '/b'],
        ['frozen:a/b/', ''],
        ['active:', ''],
        ['active:', '@g'],
        ['active:n@', ''],
        ['good:', '@g/h'],
        ['good:*@g/', '/h'],
        ['healthy:', ''],
        ['healthy:', ':2'],
        ['healthy:s:', ''],
        ['agent:', ''],
        ['not:agent:', ''],
        ['not:state:a/', ''],
      ].map(([before = '', after = '']) => ({ before, after })),
    );
    fc.assert(
      fc.property(parts, name, wrong, name, ({ before, after }, start, bad, rest) => {
        expect(placeOf(`${before}${start}${bad}${rest}${after}`)).toBe(before.length + 1);
      }),
    );
  });

  test('kind that is nearly one is answered with that one', () => {
    const kinds = ['state', 'idle', 'blocked', 'active', 'good', 'healthy', 'frozen', 'agent'];
    for (const kind of kinds)
      for (const near of [kind.slice(1), kind.slice(0, -1), `${kind}s`, kind.toUpperCase()]) {
        if (kinds.includes(near)) continue;
        expect(() => parseCondition(`${near}:a`)).toThrow(`did you mean '${kind}:'?`);
      }
  });

  test.each([
    ['healthy:web:1000000', "character 13: '1000000' is not a number of instances from 1 to 999999"],
    ['healthy:web:00', "character 13: '00' is not a number"],
    ['healthy:web:1e3', "character 13: '1e3' is not a number"],
    ['healthy:web:-1', "character 13: '-1' is not a number"],
    [`idle:${'a/'.repeat(100)}b`, 'character 6: this group has 201 characters; 200 are allowed'],
    [`active:n@${'a'.repeat(201)}`, 'character 10: this group has 201 characters; 200 are allowed'],
    [`state:${'a'.repeat(201)}`, 'character 7: this state path has 201 characters; 200 are allowed'],
    ['idle:/', "character 6: '/' is not a valid group"],
    ['idle:*', "character 6: '*' is not a valid group"],
    ['agent:*', "character 7: '*' is not a valid node name; only good: takes '*'"],
    ['good:a@b@c', "character 8: 'b@c' is not a valid group"],
  ])('of too much, or of nothing that is counted: number %#', (text, message) => {
    expect(() => parseCondition(text)).toThrow(message);
  });
});
