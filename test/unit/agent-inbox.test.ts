// The requests of one principal on a node: oldest first, by their names, with no more read than is new.
import { expect, onTestFinished, test } from 'vitest';
import { followInbox } from '../../src/agent/inbox.ts';
import type { OpenRequests } from '../../src/agent/inbox.ts';
import { changing } from '../../src/agent/watched.ts';
import type { Operation } from '../../src/consul/consul.ts';
import { fakeConsul } from '../support/fake-consul.ts';
import { instant, memoryConsul } from '../support/memory-consul.ts';

const FOLDER = 'runlock/.requests/ops/inbox/web01/';

/** An inbox, and what is known of it after each change. */
function follow(...first: readonly string[]) {
  const { consul: memory, put, remove, store } = memoryConsul();
  const version = changing(0);
  const reads: string[][] = [];
  let before: ((keys: readonly string[]) => void) | undefined;
  const consul = fakeConsul({
    transact: memory.transact.bind(memory),
    indexOf: async (prefix, { index = 0, signal }) => {
      const { change } = version.look();
      if (store().index <= index) await version.past(change, { signal });
      const names = await memory.keys(prefix, { signal });
      return { names: names.toSorted(), index: store().index };
    },
    tryRead: (operations: readonly Operation[], options) => {
      const keys = operations.map(({ key }) => key);
      before?.(keys);
      before = undefined;
      reads.push(keys);
      return memory.tryRead(operations, options);
    },
  });
  for (const id of first) put(FOLDER + id, '');
  const open: OpenRequests = new Map();
  const looks = changing<readonly string[]>([]);
  const over = new AbortController();
  onTestFinished(() => over.abort());
  const { clock } = instant(0);
  followInbox(
    { consul, clock, prefix: 'runlock', node: 'web01', principal: 'ops' },
    { open, read: () => undefined, changed: (named) => looks.set([...named].sort()) },
    over.signal,
  ).catch(() => undefined);
  let seen = 0;
  return {
    open,
    reads,
    onRead: (act: typeof before) => (before = act),
    /** What stands there, once something has changed. */
    named: async () => {
      await looks.past(seen, over);
      const { value, change } = looks.look();
      seen = change;
      return value;
    },
    put: (...ids: readonly string[]) => {
      for (const id of ids) put(FOLDER + id, '');
      version.set(0);
    },
    remove: (id: string) => {
      remove(FOLDER + id);
      version.set(0);
    },
  };
}

test('open requests are in the order in which they were written; other keys are none', async () => {
  const { open, named, put } = follow('c', 'Bad', 'a', 'x/y');
  await named();
  put('b', '0');
  expect(await named()).toEqual(['0', 'a', 'b', 'c']);
  expect([...open.keys()]).toEqual(['c', 'a', 'b', '0']);
  expect(open.get('c')?.ref).toEqual({ principal: 'ops', id: 'c' });
});

test('only what is new is read, a few at a time, and again only what was done with before', async () => {
  const many = Array.from({ length: 40 }, (_, i) => `m${i}`);
  const { open, named, put, reads } = follow(...many);
  await named();
  expect(reads.map(({ length }) => length)).toEqual([16, 16, 8]);
  expect([...open.keys()]).toEqual(many);
  put('new');
  await named();
  expect(reads.slice(3)).toEqual([[`${FOLDER}new`]]);
  open.delete('m3');
  put('m3');
  await named();
  expect(reads.slice(4)).toEqual([[`${FOLDER}m3`]]);
});

test('what is removed while it is read is not there, and takes nothing else with it', async () => {
  const { open, named, put, remove, onRead } = follow('a');
  await named();
  onRead(() => remove('c'));
  put('b', 'c', 'd');
  await named();
  expect([...open.keys()]).toEqual(['a', 'b', 'd']);
});
