// What is read or written together, and changes again each time: said after a few tries, as 75.
import { expect, test } from 'vitest';
import { look } from '../../src/conditions/read.ts';
import { sourcesOf } from '../../src/conditions/sources.ts';
import { parseCondition } from '../../src/conditions/parse.ts';
import type { Entry } from '../../src/consul/consul.ts';
import { exitStatus } from '../../src/errors.ts';
import { setState } from '../../src/state/change.ts';
import { withClaims } from '../../src/state/claims.ts';
import { decodeState, encodeState } from '../../src/state/document.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const { signal } = new AbortController();
const key = 'runlock/.state/a/.value';
let writes = 0;

/** By another run each time, whose claim it stands under. */
function state(): Entry {
  writes += 1;
  const claim = { group: 'g', slot: 0, root: `r${writes}` };
  const at = new Date(0).toISOString();
  const value = encodeState({ value: `${writes}`, change: `c${writes}`, by: 'n', at, while: claim });
  return { key, value, createIndex: 1, modifyIndex: writes };
}

const busy = {
  consul: fakeConsul({
    get: () => Promise.resolve({ entry: state(), index: writes }),
    readAll: () => Promise.resolve([state()]),
  }),
  prefix: 'runlock',
};

const after = async (doing: Promise<unknown>) => {
  const error: unknown = await doing.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return { status: exitStatus(error), message: (error as Error).message };
};

test('a state that somebody else changes before each write', async () => {
  const plain = () => ({
    ...state(),
    value: encodeState({ value: '1', change: `c${writes}`, by: 'n', at: new Date(0).toISOString() }),
  });
  const consul = fakeConsul({
    get: () => Promise.resolve({ entry: plain(), index: writes }),
    transact: () => Promise.resolve({ kind: 'refused', at: 0, why: 'index is stale' }),
  });
  const clock = { now: () => 0, earliest: () => 0, sleep: () => Promise.resolve() };
  const deps = { clock, random: () => 0 };
  const changing = { ...busy, consul, deps, signal } as unknown as Parameters<typeof setState>[0];
  const request = { path: 'a', value: 'own', by: 'me', touch: false, newId: () => 'own' };
  expect(await after(setState(changing, request))).toEqual({
    status: 75,
    message: "a keeps changing; see 'runlock state watch a' and try again",
  });
});

test('a state that stands under another claim at each look', async () => {
  const document = (entry: Entry) => ({ key, document: decodeState(entry) });
  const reading = withClaims(busy, [document(state())], { limits: { signal }, read: document });
  expect(await after(reading)).toEqual({ status: 75, message: `${key} keeps changing; try again` });
});

test('the same of conditions', async () => {
  let slot = 0;
  const moving = () => {
    slot += 1;
    const claim = { group: 'g', slot, root: 'r' };
    return {
      ...state(),
      value: encodeState({ value: '1', change: 'c', by: 'n', at: new Date(0).toISOString(), while: claim }),
    };
  };
  const consul = fakeConsul({
    get: () => Promise.resolve({ entry: moving(), index: 1 }),
    readAll: () => Promise.resolve([moving()]),
  });
  const sources = sourcesOf([parseCondition('state:a')], { prefix: 'runlock', groups: [] });
  expect(await after(look(consul, { sources, proven: new Set() }, { signal }))).toEqual({
    status: 75,
    message: 'the states of these conditions keep changing; try again',
  });
});
