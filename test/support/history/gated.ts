// A service behind a gate, and runs of a group of the same name that go through it: seen from outside by a watcher of the test's own.
import { expect } from 'vitest';
import type { TestContext } from 'vitest';
import { eventually } from '../processes.ts';
import type { Health, Services } from '../services.ts';
import { watchService } from '../services-watcher.ts';
import type { Watcher } from '../services-watcher.ts';
import { startFleet } from './fleet.ts';
import type { Fleet, Node, NodeOptions } from './fleet.ts';
import { SOON_MS } from './steps.ts';

/** A service of the test's own, with a group of the same name whose runs its gate guards. */
export interface Gated {
  readonly name: string;
  readonly fleet: Fleet;
  readonly watcher: Watcher;
  /** `runlock exec` on the node, behind the gate. */
  readonly start: (node: string, options?: NodeOptions) => Node;
  /** What the node's health check gets from now on. */
  readonly answer: (node: string, health: Health) => Promise<void>;
  /** The node's own maintenance of the service. */
  readonly maintenance: (node: string) => Promise<string[]>;
  /** As `answer`; resolves when the check has seen it, beside the maintenance. */
  readonly breakDown: (node: string, health: Health) => Promise<void>;
  /** Neither slot, ticket, lock nor maintenance of the node is left, and no session. */
  readonly untilNothingLeft: (node: string) => Promise<void>;
}

export interface GatedOptions {
  /** Which offer the service; all unless given. */
  readonly nodes?: readonly string[];
  readonly slots?: number;
  readonly limit?: number;
  readonly args?: readonly string[];
}

export async function startGated(
  services: Services,
  { onTestFinished }: TestContext,
  { name, ...options }: GatedOptions & { readonly name: string },
): Promise<Gated> {
  const { nodes = services.nodes.map((node) => node.name), slots = 1, limit = 1, args = [] } = options;
  await services.offer(name, nodes);
  const gate = ['--service', name, '--max-offline', String(limit), '--gate-stable', '300ms', '-v', ...args];
  const service = { name, limitOf: () => limit };
  const fleet = startFleet(services.server, { group: name, slots, service });
  const watcher = watchService(services.server, name);
  onTestFinished(async () => {
    await watcher.stop();
    await fleet[Symbol.asyncDispose]();
  });
  const answer = (node: string, health: Health) => services.node(node).instance(name).answer(health);
  const maintenance = async (node: string) => {
    const { offline } = (await watcher.looks()).at(-1) ?? { offline: [] };
    return offline.flatMap((one) => (one.node === node ? one.maintenance : []));
  };
  return {
    ...{ name, fleet, watcher, maintenance },
    start: (node, one = {}) =>
      fleet.start(node, { agent: services.node(node).agent, ...one, args: [...gate, ...(one.args ?? [])] }),
    answer,
    breakDown: async (node, health) => {
      await answer(node, health);
      await eventually(async () => {
        const now = (await watcher.looks()).at(-1)?.offline.find((one) => one.node === node);
        expect(now?.critical).toHaveLength(2);
      }, SOON_MS);
    },
    untilNothingLeft: (node) =>
      eventually(async () => {
        const { left } = await fleet.history();
        expect(left.keys.filter((key) => !/^\.(?:runs\/|tail$|last$)/.test(key))).toEqual([]);
        expect(left.sessions).toEqual([]);
        expect(await services.server.kv.get(`runlock/.gate/${name}`)).toBeUndefined();
        expect(await services.node(node).maintenances(name)).toEqual([]);
        expect(await maintenance(node)).toEqual([]);
      }, SOON_MS),
  };
}

/** All of them end with this status. */
export async function endsWith(status: number, ...nodes: readonly Node[]): Promise<void> {
  for (const node of nodes) {
    const ended = await node.ended;
    expect(ended.status, `${node.name}: ${ended.stderr}`).toBe(status);
  }
}
