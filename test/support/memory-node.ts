// A Consul in memory for unit tests of the gate: its keys, by the model's store, and one node with what it offers.
import type { Consul, HealthCheck, ServiceEntry } from '../../src/consul/consul.ts';
import { emptyStore, endSession, get, list, openSession, transact } from '../model/store.ts';
import { fakeConsul } from './fake-consul.ts';

const NODE = 'web01';

export interface MemoryNode {
  readonly consul: Consul;
  /** Registers an instance, anew where it is there: then without its maintenance. */
  readonly register: (id: string, service?: string) => void;
  /** Takes it out of service, as a run does by its reason, or puts it back. */
  readonly maintain: (id: string, reason: string | undefined) => void;
  /** The ids of what is out. */
  readonly out: () => string[];
  readonly put: (key: string, value: string, session?: string) => void;
  /** What the key has, as JSON. */
  readonly at: (key: string) => unknown;
  readonly shown: (service: string) => ServiceEntry[];
  /** The services whose gates were locked, or asked about, last. */
  readonly gates: () => readonly string[];
}

/** What the agent knows the catalogue shows at once. `others`: what it shows of other nodes. */
export function memoryNode(others: readonly ServiceEntry[] = []): MemoryNode {
  let store = emptyStore;
  let sessions = 0;
  let registrations = 0;
  let gates: readonly string[] = [];
  const instances = new Map<string, { service: string; createIndex: number; reason?: string | undefined }>();
  const checksOf = (id: string): HealthCheck[] => {
    const reason = instances.get(id)?.reason;
    if (reason === undefined) return [];
    const check = { node: NODE, id: `_service_maintenance:${id}`, name: '', status: 'critical' } as const;
    return [{ ...check, notes: reason, output: '', serviceId: id }];
  };
  const shown = (service: string): ServiceEntry[] =>
    [...instances].flatMap(([serviceId, one]) => {
      const { createIndex } = one;
      if (one.service !== service) return [];
      return [{ node: NODE, serviceId, service, createIndex, address: '', checks: checksOf(serviceId) }];
    });
  const maintain = (id: string, reason: string | undefined) => {
    const one = instances.get(id);
    if (one) instances.set(id, { ...one, reason });
  };
  const consul = fakeConsul({
    createSession: () => {
      sessions += 1;
      store = openSession(store, `s${sessions}`);
      return Promise.resolve(`s${sessions}`);
    },
    readSession: (id) => {
      const made = { ttl: '10s', behavior: 'delete', lockDelayMs: 0, checks: [] };
      return Promise.resolve({ id, node: NODE, ...made });
    },
    destroySession: (id) => {
      store = endSession(store, id);
      return Promise.resolve();
    },
    transact: (operations) => {
      const sent = transact(store, operations);
      ({ store } = sent);
      const asked = operations.flatMap(({ key }) => /\.gate\/([a-z]+)$/.exec(key)?.[1] ?? []);
      if (asked.length > 0) gates = asked;
      return Promise.resolve(sent.answer);
    },
    get: (key) => Promise.resolve({ entry: get(store, key), index: store.index }),
    list: (prefix) => Promise.resolve({ entries: list(store, prefix), index: store.index }),
    agentServices: () => Promise.resolve([...instances].map(([id, { service }]) => ({ id, service }))),
    agentChecks: () => Promise.resolve([...instances.keys()].flatMap(checksOf)),
    serviceMaintenance: (id, { on, reason }) => {
      maintain(id, on ? reason : undefined);
      return Promise.resolve(instances.has(id));
    },
    health: (service) => {
      const elsewhere = others.filter((one) => one.service === service);
      return Promise.resolve({ entries: [...shown(service), ...elsewhere], index: 1 });
    },
  });
  return {
    consul,
    register: (id, service = 'web') => {
      instances.set(id, { service, createIndex: ++registrations });
    },
    maintain,
    out: () => [...instances].flatMap(([id, { reason }]) => (reason === undefined ? [] : [id])),
    put: (key, value, session) => {
      const verb = session === undefined ? { verb: 'set' as const } : { verb: 'lock' as const, session };
      if (session !== undefined) store = openSession(store, session);
      store = transact(store, [{ ...verb, key, value }]).store;
    },
    at: (key) => {
      const entry = get(store, key);
      return entry && (JSON.parse(entry.value) as unknown);
    },
    shown,
    gates: () => gates,
  };
}
