// Waiters of `runlock wait` while the store goes back to a snapshot.
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { startAgent } from '../support/consul.ts';
import { runlock, startRunlock } from '../support/runlock.ts';

test('a waiter outlives a store that goes back to a snapshot, and hears what changes in it', async () => {
  await using own = await startAgent({ durable: true });
  const file = join(own.folder, 'snapshot');
  await own.consul('snapshot', 'save', file);
  for (let i = 0; i < 20; i += 1) await own.kv.put('filler', String(i));
  await runlock(own, ['state', 'set', 'b', '1']);
  const waiting = startRunlock(own, ['wait', '-v', '--timeout', '55s', '--until', 'state:b=2']);
  await waiting.says(/state:b=2 does not hold/);
  await own.consul('snapshot', 'restore', file);
  await runlock(own, ['state', 'set', 'b', '2']);
  expect((await waiting.ended).status).toBe(0);
});
