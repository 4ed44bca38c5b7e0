// A Consul with a key-value store in memory, which does what Consul's transactions do (test/model/store.ts). A test may
// lose the answer of a change, and put something in between before one.
import type { Answer, Consul, Operation } from '../../src/consul/consul.ts';
import { RunlockError } from '../../src/errors.ts';
import { emptyStore, endSession, get, list, openSession, transact } from '../model/store.ts';
import type { Store } from '../model/store.ts';
import { fakeConsul } from './fake-consul.ts';

/** What becomes of a change: `lost`: it takes effect, and nobody is told; `failed`: neither. */
export type Fate = 'answered' | 'lost' | 'failed';

export interface MemoryConsul {
  readonly consul: Consul;
  readonly store: () => Store;
  readonly put: (key: string, value: string) => void;
  readonly remove: (key: string) => void;
  readonly openSession: (session: string) => void;
  readonly endSession: (session: string) => void;
  readonly value: (key: string) => unknown;
  readonly keys: () => readonly string[];
  /** Changes that were sent, in their order. */
  readonly sent: () => readonly (readonly Operation[])[];
}

export function memoryConsul(
  fateOf: (sent: number) => Fate = () => 'answered',
  /** Keys that the token may not read. */
  isHidden: (key: string) => boolean = () => false,
): MemoryConsul {
  let store = emptyStore;
  const sent: (readonly Operation[])[] = [];
  const forbidden = (key: string) => new RunlockError('forbidden', `no right to read ${key}`);
  const hide = (answer: Answer): Answer =>
    answer.kind === 'done'
      ? { ...answer, entries: answer.entries.filter(({ key }) => !isHidden(key)) }
      : answer;
  const read = (operations: readonly Operation[]): Answer => {
    // Consul answers a hidden `get` with nothing at all.
    const nothing = { verb: 'get-tree', key: ' ' } as const;
    const asked = operations.map((each) => (each.verb === 'get' && isHidden(each.key) ? nothing : each));
    return hide(transact(store, asked).answer);
  };
  const change = (operations: readonly Operation[]): Promise<Answer> => {
    sent.push(operations);
    const fate = fateOf(sent.length - 1);
    if (fate === 'failed') return Promise.reject(new RunlockError('unreachable', 'no answer'));
    const { answer, store: after } = transact(store, operations);
    store = after;
    return fate === 'lost'
      ? Promise.reject(new RunlockError('unreachable', 'no answer'))
      : Promise.resolve(answer);
  };
  const done = (operations: readonly Operation[]) => {
    const { answer, store: after } = transact(store, operations);
    if (answer.kind === 'refused') throw new Error(answer.why);
    store = after;
  };
  const consul = fakeConsul({
    get: (key) =>
      isHidden(key)
        ? Promise.reject(forbidden(key))
        : Promise.resolve({ entry: get(store, key), index: store.index }),
    list: (prefix) => Promise.resolve({ entries: list(store, prefix), index: store.index }),
    keys: (prefix) =>
      Promise.resolve(
        list(store, prefix)
          .map(({ key }) => key)
          .filter((key) => !isHidden(key)),
      ),
    tryRead: (operations) => Promise.resolve(read(operations)),
    readAll: (operations) => {
      const answer = read(operations);
      return answer.kind === 'done' ? Promise.resolve(answer.entries) : Promise.reject(new Error(answer.why));
    },
    transact: change,
  });
  return {
    ...{ consul, store: () => store, sent: () => sent },
    put: (key, value) => {
      done([{ verb: 'set', key, value }]);
    },
    remove: (key) => {
      done([{ verb: 'delete', key }]);
    },
    openSession: (session) => {
      store = openSession(store, session);
    },
    endSession: (session) => {
      store = endSession(store, session);
    },
    value: (key) => JSON.parse(get(store, key)?.value ?? 'null') as unknown,
    keys: () => store.entries.map(({ key }) => key),
  };
}

/** Time stands still, and no pause takes any. */
export const instant = (nowMs: number, random: () => number = () => 0.5) => ({
  random,
  clock: {
    now: () => nowMs,
    monotonicMs: () => 0,
    earliest: () => nowMs,
    latest: () => nowMs,
    sleep: (_: number, { signal }: { signal: AbortSignal }) => {
      signal.throwIfAborted();
      return Promise.resolve();
    },
  },
});
