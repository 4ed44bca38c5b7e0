/** Everything that a gate depends on, as last read, or followed by watches. */
import type { Consul, ReadOptions, RetryOptions } from '../consul/consul.ts';
import { lookPast } from '../consul/watch.ts';
import type { Deps } from '../platform/deps.ts';
import type { Bell } from './bell.ts';
import { decideGate } from './decide.ts';
import type { Bounds, Question, Verdict } from './decide.ts';
import type { Instance } from './instances.ts';
import { pauseMs } from './pace.ts';
import { readRunning } from './peers.ts';
import type { GateGroup, Running } from './peers.ts';
import { readInstances } from './read.ts';

export interface GateEffects {
  readonly consul: Consul;
  readonly deps: Pick<Deps, 'clock' | 'random'>;
}

/** What is asked: may this node go offline? */
export interface Gate extends Bounds {
  /** As `findServices` gives them. */
  readonly services: readonly string[];
  readonly node: string;
  /** How long the gate must have been open, in milliseconds; 0: one look is enough. */
  readonly stableMs: number;
  /** The groups in which other nodes may run at the same time: such nodes count as offline. */
  readonly groups?: readonly GateGroup[];
  /** The services that the node was seen to offer; each look adds to it. */
  readonly seenHere: Set<string>;
}

export interface Scene {
  verdicts(): readonly Verdict[];
  /**
   * Whether a node offers a service of exactly this name. Consul's health answers ignore case, but the agents do not.
   */
  isOffered(service: string): boolean;
  /** After how many milliseconds the verdicts may change by time alone; Infinity: never. */
  dueInMs(): number;
  /** Reads everything now. */
  read(options: RetryOptions): Promise<void>;
  /** Watches until `ended`, and rings for each change. May be called again. */
  follow(bell: Bell, ended: AbortSignal): void;
}

interface Source {
  /** The index of the last read; 0: nothing was read yet. */
  index: number;
  readonly read: (options: ReadOptions) => Promise<Found>;
}

interface Found {
  readonly index: number;
  /** Stores what was read as the newest state. */
  readonly keep: () => void;
}

/** How the other nodes that run in the group are counted. */
export type Count = (running: Running) => Pick<Question, 'running' | 'waitedFor'>;

export function createScene(
  { consul, deps: { clock, random } }: GateEffects,
  gate: Gate,
  count: Count,
): Scene {
  const { services, node, seenHere, groups = [] } = gate;
  const instances = new Map<string, readonly Instance[]>();
  const running = new Map<GateGroup, Running>();
  const sources: Source[] = services.map((service) => ({
    index: 0,
    read: async (options) => {
      const { value, index } = await readInstances(consul, service, options);
      const keep = () => {
        instances.set(service, value);
        if (value.some((one) => one.node === node)) seenHere.add(service);
      };
      return { index, keep };
    },
  }));
  const ofGroup = (group: GateGroup): Source => ({
    index: 0,
    read: async (options) => {
      const { value, index } = await readRunning(consul, { group, node, clock }, options);
      return { index, keep: () => void running.set(group, value) };
    },
  });
  sources.push(...groups.map(ofGroup));
  const followOne = async (source: Source, bell: Bell, signal: AbortSignal) => {
    for (;;) {
      const { index: before } = source;
      const { index, keep } = await lookPast((past) => source.read({ ...past, signal }), before);
      keep();
      source.index = index;
      if (index !== before) bell.ring();
      await clock.sleep(pauseMs(mostWaiting(), random()), { signal });
    }
  };
  /** An upper bound: every node that offers the services may be waiting for their gate. */
  const mostWaiting = () => new Set([...instances.values()].flat().map((one) => one.node)).size;
  const counted = () => [...running.values()].map(count);
  let followed = false;
  return {
    verdicts: () =>
      services.map((service) =>
        decideGate({
          ...gate,
          service,
          instances: instances.get(service) ?? [],
          wasHere: seenHere.has(service),
          running: counted().flatMap((one) => one.running ?? []),
          waitedFor: counted().flatMap((one) => one.waitedFor ?? []),
        }),
      ),
    isOffered: (service) => instances.get(service)?.some((one) => one.service === service) ?? false,
    dueInMs: () => Math.min(Infinity, ...[...running.values()].map(({ dueInMs }) => dueInMs)),
    read: async (options) => {
      const found = await Promise.all(sources.map((source) => source.read(options)));
      // Store all answers together, so that a decision never mixes new answers with older ones.
      for (const [i, { index, keep }] of found.entries()) {
        const source = sources[i];
        if (source) source.index = index;
        keep();
      }
    },
    follow: (bell, ended) => {
      if (followed) return;
      followed = true;
      for (const source of sources)
        followOne(source, bell, ended).catch((error: unknown) => bell.fail(error));
    },
  };
}
