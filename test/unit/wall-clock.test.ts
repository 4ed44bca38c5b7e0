// What says until when something lasts, on a host whose wall clock was set: never shorter than asked (docs/adr/0012).
import { expect, test } from 'vitest';
import { freeze } from '../../src/commands/freeze/freeze.ts';
import type { Answer, Entry, Operation } from '../../src/consul/consul.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { heldAgain, heldClaim, holdOn } from '../../src/lock/hold.ts';
import { giveHeldBack } from '../../src/lock/release.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import type { Claim } from '../../src/lock/records.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const HOUR_MS = 3_600_000;
const { signal } = new AbortController();
const keys = groupKeys('runlock', 'web');
const at = (ms: number) => new Date(ms).toISOString();

/** A host on which an hour has gone by and whose wall clock was then set back to where it began. */
function host() {
  let setBackMs = HOUR_MS;
  const sent: Operation[] = [];
  let transacting = (): void => undefined;
  const held: Claim = {
    ...{ node: 'web01', state: 'held', run: 'r0', since: at(0), command: 'acquire', hold: HOUR_MS },
    ...{ heldUntil: at(2 * HOUR_MS), pid: 1, startTime: '1', bootId: 'b' },
  };
  const entry: Entry = { key: keys.owner(0), value: encode(held), createIndex: 7, modifyIndex: 7 };
  const consul = fakeConsul({
    get: () => Promise.resolve({ entry: undefined, index: 7 }),
    list: () => Promise.resolve({ entries: [entry], index: 7 }),
    transact: (operations: readonly Operation[]): Promise<Answer> => {
      transacting();
      sent.push(...operations);
      return Promise.resolve({ kind: 'done', entries: [{ ...entry, modifyIndex: 8 }] });
    },
  });
  const clock = {
    ...{ now: () => 0, earliest: () => 0, latest: () => setBackMs, monotonicMs: () => setBackMs },
    sleep: () => Promise.resolve(),
  };
  const deps = { clock, random: () => 0, emit: () => undefined } as Partial<Deps> as Deps;
  const runner = { pid: 1, startTime: '1', bootId: 'b' };
  const run = { id: 'r1', node: 'web01', command: 'acquire', runner, hold: HOUR_MS, slots: 1 };
  return {
    ...{ consul, deps, held, context: { consul, deps, keys, run } },
    /** What was written there. */
    written: (key: string): unknown => {
      const found = sent.find((one) => one.key === key && 'value' in one);
      return found && 'value' in found ? JSON.parse(found.value) : undefined;
    },
    /** That much later the answer to a transaction comes. */
    delay: (ms: number) => void (transacting = () => void (setBackMs += ms)),
  };
}

test('what acquire holds lasts for its hold, and as long again when it is asked for again', () => {
  const { context, held } = host();
  expect(heldClaim(context, 0).heldUntil).toBe(at(2 * HOUR_MS));
  expect(heldAgain(context, held).heldUntil).toBe(at(2 * HOUR_MS));
});

test('an answer after the hold has ended says nothing is held, whatever the wall clock shows', async () => {
  const { context, held, delay } = host();
  const owner = { claim: held, index: 7 };
  expect(await holdOn(context, { slot: 0, owner }, signal)).toMatchObject({ index: 8 });
  delay(HOUR_MS);
  expect(await holdOn(context, { slot: 0, owner }, signal)).toBeUndefined();
});

test('what release --failed leaves keeps others out for its hold', async () => {
  const { consul, deps, written } = host();
  const ended = await giveHeldBack({ consul, deps, keys, node: 'web01', slot: 0 }, { outcome: 'failed' });
  expect(ended?.kept).toMatchObject({ state: 'failed', heldUntil: at(2 * HOUR_MS) });
  expect(written(keys.owner(0))).toMatchObject({ state: 'failed', heldUntil: at(2 * HOUR_MS) });
});

test('a freeze lasts for as long as it was asked for', async () => {
  const { consul, deps, written } = host();
  const asked = { prefix: 'runlock', at: 'web', reason: 'release day', forMs: HOUR_MS, by: 'root@host' };
  const { freeze: set } = await freeze({ consul, deps }, asked, signal);
  expect(set.until).toBe(at(2 * HOUR_MS));
  expect(written('runlock/web/.freeze')).toMatchObject({ until: at(2 * HOUR_MS) });
});
