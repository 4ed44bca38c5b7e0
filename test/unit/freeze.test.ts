import { describe, expect, test } from 'vitest';
import type { Context } from '../../src/cli/command.ts';
import { busyEvent } from '../../src/runner/run-events.ts';
import { describeFreeze } from '../../src/commands/freeze/freeze.ts';
import { describeThaw } from '../../src/commands/thaw/thaw.ts';
import type { Acquired } from '../../src/lock/acquire.ts';
import { leftOf } from '../../src/lock/records.ts';
import { freezeKeys, groupKeys } from '../../src/lock/keys.ts';
import { freeze, thaw } from '../../src/lock/transactions.ts';
import { renderWaiting } from '../../src/output/waiting.ts';
import { sentenceOf } from '../../src/events/sentence.ts';
import { askedBy } from '../support/command-line.ts';

const now = Date.parse('2026-03-01T12:00:00Z');
const minute = 60_000;
const at = (ms: number) => new Date(now + ms).toISOString();

const context: Context = {
  ...{ env: {}, version: '1.2.3' },
  readText: () => {
    throw Object.assign(new Error('no such file'), { code: 'ENOENT' });
  },
};
const read = (argv: string[], env: Record<string, string> = {}) => askedBy(argv, { ...context, env });

const common = { verbose: false, quiet: false, logFormat: 'text' };

describe('the command line', () => {
  test('freeze needs a group and a reason', async () => {
    expect(await read(['freeze', 'prod/web', '--reason', ' release day '])).toEqual({
      ...{ kind: 'freeze', common },
      options: { prefix: 'runlock', at: 'prod/web', reason: 'release day', json: false },
    });
  });

  test('freeze takes every option, and / for the root', async () => {
    const argv = ['freeze', '/', '--reason=x', '--for', '1h30m', '--json', '--prefix', 'ops/locks', '-v'];
    expect(await read(argv)).toEqual({
      ...{ kind: 'freeze', common: { ...common, verbose: true } },
      options: { prefix: 'ops/locks', at: '', reason: 'x', forMs: 90 * minute, json: true },
    });
  });

  test('the environment can say why and how long', async () => {
    const env = { RUNLOCK_REASON: 'release day', RUNLOCK_FOR: '1m' };
    expect(await read(['freeze', 'web'], env)).toMatchObject({
      options: { reason: 'release day', forMs: minute },
    });
  });

  test('thaw needs a group', async () => {
    expect(await read(['thaw', '/', '--json'])).toEqual({
      ...{ kind: 'thaw', common, options: { prefix: 'runlock', at: '', json: true } },
    });
  });

  test.each([
    [['freeze', 'web'], /^--reason is required; see 'runlock freeze --help'$/],
    [['freeze', 'web', '--reason', ''], /^--reason \S+.*: empty; say why/],
    [['freeze', 'web', '--reason', ' \t'], /^--reason \S+.*: empty; say why/],
    [['freeze', 'web', '--reason', 'a\nb'], /one line/],
    [['freeze', 'web', '--reason', 'a\x1b[2Jb'], /one line/],
    [['freeze', 'web', '--reason', 'a\u2028b'], /one line/],
    [
      ['freeze', 'web', '--reason', 'x'.repeat(501)],
      /^--reason 'x{60}…': too long \(501 characters\); 500 are allowed$/,
    ],
    [['freeze', 'web', '--reason', 'x', '--for', '0'], /^--for 0: must be greater than 0$/],
    [['freeze', 'web', '--reason', 'x', '--for', 'monday'], /not a duration/],
    [['freeze', 'web', 'and', 'more', '--reason', 'x'], /too many arguments/],
    [['freeze', 'web/', '--reason', 'x'], /^group \S+: not a group; /],
    [['freeze', '//', '--reason', 'x'], /^group \S+: not a group; /],
    [['freeze', '--reason', 'x'], /^missing <group>; /],
    [['thaw'], /^missing <group>; /],
    [['thaw', '..'], /^group \S+: not a group; /],
    [['thaw', ''], /^group \S+: not a group; /],
  ])('%j is wrong usage', async (argv, message) => {
    await expect(read(argv)).rejects.toMatchObject({
      code: 'usage',
      message: expect.stringMatching(message) as string,
    });
  });
});

describe('the keys', () => {
  test('that stop a group are its own, then those above, the root’s last', () => {
    expect(freezeKeys('runlock', 'prod/web')).toEqual([
      'runlock/prod/web/.freeze',
      'runlock/prod/.freeze',
      'runlock/.freeze',
    ]);
    expect(freezeKeys('a/b', '')).toEqual(['a/b/.freeze']);
    expect(groupKeys('runlock', 'prod/web').freezes).toEqual(freezeKeys('runlock', 'prod/web'));
  });
});

describe('the transactions', () => {
  test('freeze writes where nothing was seen, or over what was seen', () => {
    const record = { by: 'ops', reason: 'disks', since: at(0) };
    for (const index of [0, 17]) {
      expect(freeze('k', record, index)).toEqual([
        {
          means: 'freeze',
          operation: { verb: 'cas', key: 'k', value: JSON.stringify({ v: 1, ...record }), index },
        },
      ]);
    }
  });

  test('thaw deletes what was seen, and nothing newer', () => {
    expect(thaw('k', 17).map(({ operation }) => operation)).toEqual([
      { verb: 'check-index', key: 'k', index: 17 },
      { verb: 'delete-cas', key: 'k', index: 17 },
    ]);
  });
});

test('a freeze without an end lasts for ever, one with an end until then', () => {
  const frozen = { by: 'ops', reason: 'disks', since: at(0) };
  expect(leftOf(frozen, now)).toBe(Infinity);
  expect(leftOf({ ...frozen, until: at(minute) }, now)).toBe(minute);
  expect(leftOf({ ...frozen, until: at(0) }, now)).toBe(0);
});

const set = { at: 'prod', by: 'anna@ops', reason: 'release day', since: at(-5 * minute) };

describe('what a run that does not wait says', () => {
  const busy = (group: string, frozen: string, freeze: object = {}) => {
    const why = { kind: 'frozen', at: frozen, freeze: { ...set, ...freeze } } as const;
    const found = {
      kind: 'busy',
      why,
      context: { keys: groupKeys('runlock', group), run: { node: 'web01' } },
    };
    return sentenceOf(
      busyEvent(found as unknown as Extract<Acquired, { kind: 'busy' }>, { wait: 0, nowMs: now }),
    );
  };

  test.each([
    ['prod', 'prod', 'prod'],
    ['prod/web', 'prod', 'prod (which includes prod/web)'],
    ['prod/web', '', 'every group'],
  ])('%s, frozen at %j', (group, frozen, what) => {
    expect(busy(group, frozen)).toEqual({
      level: 'warning',
      message: `busy: ${what} was frozen 5m ago by anna@ops (release day); see 'runlock status ${group}'`,
    });
  });

  test('until when, if it ends', () => {
    expect(busy('prod', 'prod', { until: at(90 * minute) }).message).toContain(
      'was frozen 5m ago by anna@ops (release day) until 2026-03-01T13:30:00Z (in 1h30m); see',
    );
  });
});

describe('the live line', () => {
  const line = (frozen: object) =>
    renderWaiting(
      { group: 'prod/web', waitedMs: 0, frozen: { by: 'ann', reason: 'disks', ...frozen } },
      undefined,
    );

  test('says what is frozen where that is not the group itself, and for how long', () => {
    expect(line({})).toBe('waiting 0s for prod/web · frozen by ann: disks');
    expect(line({ at: 'prod/web' })).toBe('waiting 0s for prod/web · frozen by ann: disks');
    expect(line({ at: 'prod' })).toBe('waiting 0s for prod/web · prod frozen by ann: disks');
    expect(line({ at: '', leftMs: minute })).toBe(
      'waiting 0s for prod/web · all groups frozen by ann for another 1m: disks',
    );
  });
});

describe('what was done', () => {
  const describing = { prefix: 'runlock', now };

  test('freeze: of everything', () => {
    expect(describeFreeze({ kind: 'frozen', freeze: { ...set, at: '' } }, describing)).toBe(
      "froze / until thawed: release day\nno new runs in any group; active runs finish; to thaw: 'runlock thaw /'\n",
    );
  });

  test('freeze: how long is what was asked, and the one before says how long it had', () => {
    const replaced = { ...set, by: 'bob@ops', reason: 'disks', until: at(minute) };
    const frozen = { ...set, since: at(-1), until: at(120 * minute - 1) };
    expect(
      describeFreeze({ kind: 'frozen', freeze: frozen, replaced }, describing).split('\n').slice(0, 2),
    ).toEqual([
      'froze prod until 2026-03-01T13:59:59Z (in 2h): release day',
      'replaced the freeze set by bob@ops 5m ago until 2026-03-01T12:01:00Z (in 1m): disks',
    ]);
  });

  test('nothing that was stored reaches the terminal as it is', () => {
    const odd = { ...set, by: 'x\x1b[2J', reason: 'a\nb\u202e' };
    const texts = [
      describeFreeze({ kind: 'frozen', freeze: odd, replaced: odd }, describing),
      describeThaw({ kind: 'thawed', freeze: odd, above: odd, problems: [] }, describing),
      describeThaw(
        { kind: 'not-frozen', at: 'prod', ended: { ...odd, until: at(0) }, problems: [] },
        describing,
      ),
    ];
    expect(texts.map((text) => text.trimEnd().split('\n').length)).toEqual([3, 2, 1]);
    for (const char of ['\u202e', '\x1b']) expect(texts.join('')).not.toContain(char);
  });
});
