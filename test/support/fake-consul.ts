// A Consul for unit tests, in memory: it answers what the test scripts.
import type { Consul } from '../../src/consul/consul.ts';
import { RunlockError } from '../../src/errors.ts';

type Session = Awaited<ReturnType<Consul['readSession']>>;

/** Sessions are made as they are asked for, unless that is scripted too. Any other call than the scripted ones throws. */
export function fakeConsul(script: Partial<Consul>): Consul {
  let session: Session;
  const usual: Partial<Consul> = {
    address: 'consul',
    fault: () => undefined,
    denied: (rule, why) =>
      new RunlockError('forbidden', `refused (${why}); the token needs the rule: ${rule}`),
    createSession: ({ ttl }) => {
      session = { id: 's', node: 'web01', ttl, behavior: 'delete', lockDelayMs: 0, checks: [] };
      return Promise.resolve(session.id);
    },
    readSession: () => Promise.resolve(session),
    renewSession: () => Promise.resolve(true),
    destroySession: () => Promise.resolve(),
    settled: () => Promise.resolve(),
  };
  return new Proxy({ ...usual, ...script } as Consul, {
    get: (all, name) => {
      if (!(name in all)) throw new Error(`the test scripts no ${String(name)} of Consul`);
      return Reflect.get(all, name) as unknown;
    },
  });
}
