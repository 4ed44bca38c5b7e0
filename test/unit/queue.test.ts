// Whose turn it is: against a Consul that answers as the test says.
import { expect, test } from 'vitest';
import type { Entry, ReadOptions } from '../../src/consul/consul.ts';
import type { RunContext } from '../../src/lock/context.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { untilFirst } from '../../src/lock/queue.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const keys = groupKeys('runlock', 'web');
const { signal } = new AbortController();
const waiting = { signal, patience: signal, either: signal };
const WAITS = new Error('it waits for the ticket');

const entry = (key: string, createIndex: number, session?: string): Entry => ({
  ...{ key, value: '', createIndex, modifyIndex: createIndex, ...(session !== undefined && { session }) },
});

/** s2 has joined behind s1, whose ticket is there in this form, and the queue's order is that of `tickets`. */
function behind(ticket: Entry | undefined, tickets: Entry[]) {
  const asked: string[] = [];
  const consul = fakeConsul({
    // A second look waits for a change that never comes.
    get: (key: string, { index }: ReadOptions) => {
      asked.push(`get ${key} ${index ?? '-'}`);
      return asked.length > 1
        ? Promise.reject(WAITS)
        : Promise.resolve({ entry: ticket, index: ticket?.modifyIndex ?? 7 });
    },
    readAll: () => (asked.push('turn'), Promise.resolve([])),
    list: () => (asked.push('list'), Promise.resolve({ entries: tickets, index: 7 })),
  });
  const context = { consul, keys } as Partial<RunContext> as RunContext;
  const place = { session: 's2', createIndex: 8, predecessor: { session: 's1', index: 5 } };
  return { asked, until: untilFirst(context, { ticket: place, turn: { slots: [], index: 7 } }, waiting) };
}

const own = entry(keys.queue('s2'), 8, 's2');

test.each([
  ['that no session holds is nobody’s', entry(keys.queue('s1'), 5)],
  ['that is gone is nobody’s', undefined],
])('a predecessor’s ticket %s: it is not waited for', async (_, ticket) => {
  const { asked, until } = behind(ticket, ticket ? [ticket, own] : [own]);
  expect(await until).toMatchObject({ kind: 'first' });
  // One look at the ticket, one at the turn, and the queue's list, where it stands in nobody's way either.
  expect(asked).toEqual([`get ${keys.queue('s1')} 5`, 'turn', 'list', 'turn']);
});

test('a predecessor’s ticket that its session holds is waited for', async () => {
  const ticket = entry(keys.queue('s1'), 5, 's1');
  const { asked, until } = behind(ticket, [ticket, own]);
  await expect(until).rejects.toBe(WAITS);
  // From the index of the ticket itself: any other one would make the next look a needless one that answers at once.
  expect(asked).toEqual([`get ${keys.queue('s1')} 5`, `get ${keys.queue('s1')} 5`]);
});
