// The conditions of a run: what is refused, and what is said when they hold.
import { expect, test } from 'vitest';
import { neverBeside } from '../../src/conditions/own-run.ts';
import { parseCondition } from '../../src/conditions/parse.ts';
import type { ServiceEntry } from '../../src/consul/consul.ts';
import { runConditions } from '../../src/runner/when.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const { signal } = new AbortController();
const groups = [
  { group: 'web', slots: 1 },
  { group: 'db', slots: 2 },
];

test.each([
  ['active:n', true],
  ['active:n@web', true],
  ['active:n@other', false],
  ['active:other@web', false],
  ['not:active:n', false],
  ['blocked:web', true],
  ['blocked:db', false],
  ['blocked:other', false],
  ['not:blocked:web', false],
  // Another run of the node may be the one that succeeds.
  ['good:n@web', false],
  ['idle:web', false],
])('%s can never hold while a run of node n in web and db starts: %s', (text, never) => {
  expect(neverBeside(parseCondition(text), { node: 'n', groups }) !== undefined).toBe(never);
});

test('services that keep changing while they are read are said once, when all is met', async () => {
  let looks = 0;
  const said: string[] = [];
  const consul = fakeConsul({
    health: (service) => {
      looks += 1;
      // Another instance each time.
      const entries = [
        { node: `n${looks}`, serviceId: service, service, checks: [] } as unknown as ServiceEntry,
      ];
      return Promise.resolve({ entries, index: looks });
    },
    may: (rights) => Promise.resolve(rights.map(() => true)),
  });
  const clock = { now: () => 0, earliest: () => 0, monotonicMs: () => 0 };
  const deps = { consul, clock, emit: ({ event }: { event: string }) => void said.push(event) };
  const read = async (...texts: string[]) => {
    const when = texts.map(parseCondition);
    const about = { prefix: 'runlock', seats: groups, node: 'n', run: 'r', when, inside: undefined };
    const conditions = runConditions(deps as unknown as Parameters<typeof runConditions>[0], about);
    for (let i = 0; i < 2; i += 1) await conditions.all().read({ signal });
  };
  await read('healthy:web', 'healthy:db:2');
  await read('healthy:web');
  expect(said).toEqual([]);
  await read('healthy:web', 'healthy:db');
  expect(said).toEqual(['when-apart']);
});
