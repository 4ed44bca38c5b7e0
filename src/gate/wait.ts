/** Waits until the health gate is open, and checks it again once the run has a slot (docs/adr/0014-health-gate.md). */
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { Consul, ReadOptions } from '../consul/consul.ts';
import { lookPast } from '../consul/watch.ts';
import { startWaiting, withoutWaiting } from '../platform/deps.ts';
import type { Deps, Waiting } from '../platform/deps.ts';
import { FOR_EVER_MS, createBell } from './bell.ts';
import { decideGate } from './decide.ts';
import type { Bounds, Question, Verdict } from './decide.ts';
import type { Instance } from './instances.ts';
import { pauseMs } from './pace.ts';
import { readInstances } from './read.ts';
import { readRunning } from './peers.ts';
import type { GateGroup, Running } from './peers.ts';
import { refuseServices } from './unknown.ts';

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

/** The end of the patience ends the wait for a closed gate. An open gate is still watched until it counts as stable. */
export interface GateWaiting extends Waiting {
  /** Called with the result of every look. */
  readonly onLook?: (verdicts: readonly Verdict[]) => void;
  /** Services that some node has to offer at the first look, because waiting does not help against a wrong name. */
  readonly mustBeOffered?: readonly string[];
}

export type GateOutcome =
  /** `seenMs`: when the gate was last seen open, on the monotonic clock. */
  | { readonly kind: 'open'; readonly verdicts: readonly Verdict[]; readonly seenMs: number }
  | { readonly kind: 'closed'; readonly verdicts: readonly Verdict[] };

/**
 * For use before asking for a slot: waits until the gate is open in two looks, `stableMs` apart, and was not seen
 * closed in between. Every other node that runs in the group counts as offline.
 * @throws RunlockError when Consul refuses, or does not answer at the end of the patience; `config` for a service
 * that must be offered and is not.
 */
export function waitOpen(effects: GateEffects, gate: Gate, waiting: GateWaiting): Promise<GateOutcome> {
  return look(effects, gate, {
    ...waiting,
    trying: waiting.patience,
    count: ({ nodes }) => ({ running: nodes }),
  });
}

/**
 * For use once the run has its slot: looks again, and for `stableMs` if the last open look is older than that. Only
 * nodes that got their slots earlier count as running, so that of two nodes with new slots only the later one yields.
 */
export async function confirmOpen(
  effects: GateEffects,
  gate: Gate,
  { signal, seenMs, onLook, trying = AbortSignal.abort() }: Confirming,
): Promise<GateOutcome> {
  const { clock } = effects.deps;
  const isRecent = seenMs !== undefined && clock.monotonicMs() - seenMs <= gate.stableMs;
  // Limit the time, because other runs wait for the slot, and perhaps for the lock of the gate.
  const late = startWaiting(clock, ANSWER_MS, trying);
  try {
    return await look(effects, isRecent ? { ...gate, stableMs: 0 } : gate, {
      ...withoutWaiting(signal),
      trying: late.either,
      count: ({ before }) => ({ running: before }),
      ...(onLook && { onLook }),
    });
  } finally {
    late.end();
  }
}

/** How long to wait for Consul's answer. Then Consul is asked once more, as at the first contact. */
const ANSWER_MS = 30_000;

/** For a run in the queue, a gate counts as closed when it was closed in two looks this far apart. */
const CLOSED_MS = 1_000;

/**
 * For use while the run waits in the queue: resolves when the gate is closed for a reason other than the runs that
 * the queue waits for anyway. The first look comes after a short delay, so that a run that gets its slot at once
 * needs none.
 * @throws the signal's reason when it aborts; RunlockError when Consul refuses.
 */
export async function untilClosed(
  effects: GateEffects,
  gate: Gate,
  signal: AbortSignal,
): Promise<readonly Verdict[]> {
  const { clock } = effects.deps;
  await clock.sleep(gate.services.length === 0 ? FOR_EVER_MS : CLOSED_MS, { signal });
  const count = ({ all }: Running) => ({ waitedFor: all });
  const scene = createScene(effects, gate, count);
  const done = new AbortController();
  try {
    await scene.read({ signal });
    scene.follow(AbortSignal.any([signal, done.signal]));
    let sinceMs: number | undefined;
    for (let fresh = true; ;) {
      const verdicts = scene.verdicts();
      const isClosed = verdicts.some(({ open }) => !open);
      const nowMs = clock.monotonicMs();
      sinceMs = isClosed ? (sinceMs ?? nowMs) : undefined;
      if (sinceMs !== undefined && fresh && nowMs - sinceMs >= CLOSED_MS) return verdicts;
      const leftMs =
        sinceMs === undefined ? scene.dueInMs() : Math.min(scene.dueInMs(), sinceMs + CLOSED_MS - nowMs);
      fresh = (await scene.change(Math.max(0, leftMs), signal)) === 'time';
      if (fresh) await scene.read({ signal });
    }
  } finally {
    done.abort();
  }
}

interface Confirming extends Omit<GateWaiting, keyof Waiting> {
  readonly signal: AbortSignal;
  readonly seenMs?: number;
  /** As in `Looking`; by default already aborted. */
  readonly trying?: AbortSignal;
}

type Looking = GateWaiting & {
  /** Until this aborts, a request that Consul does not answer is tried again. */
  readonly trying: AbortSignal;
  readonly count: (running: Running) => Counted;
};

/** How the other nodes that run in the group are counted. */
type Counted = Pick<Question, 'running' | 'waitedFor'>;

async function look(effects: GateEffects, gate: Gate, looking: Looking): Promise<GateOutcome> {
  if (gate.services.length === 0)
    return { kind: 'open', verdicts: [], seenMs: effects.deps.clock.monotonicMs() };
  const scene = createScene(effects, gate, looking.count);
  const done = new AbortController();
  const { signal, patience } = looking;
  const stop = () => done.abort(signal.reason);
  signal.addEventListener('abort', stop, { once: true });
  try {
    await readNow(scene, looking);
    const unknown = looking.mustBeOffered?.filter((service) => !scene.isOffered(service)) ?? [];
    if (unknown.length > 0) await refuseServices(effects.consul, unknown, signal);
    return await settle(effects, { gate, looking, scene, ended: done.signal });
  } catch (error) {
    if (signal.aborted || !patience.aborted || error !== patience.reason) throw error;
    return { kind: 'closed', verdicts: scene.verdicts() };
  } finally {
    signal.removeEventListener('abort', stop);
    done.abort();
  }
}

/** Reads everything now. Retries until `trying` aborts, then asks Consul once more, as at the first contact. */
async function readNow(scene: Scene, { signal, trying }: Looking): Promise<void> {
  if (!trying.aborted) {
    const isOver = (error: unknown) => !signal.aborted && error === trying.reason;
    const answered = await scene.read({ signal: AbortSignal.any([signal, trying]) }).then(
      () => true,
      (error: unknown) => {
        if (isOver(error)) return false;
        throw error;
      },
    );
    if (answered) return;
  }
  await scene.read({ signal, ...FIRST_CONTACT });
}

interface Settling {
  readonly gate: Gate;
  readonly looking: Looking;
  readonly scene: Scene;
  /** Aborts when the look ends. */
  readonly ended: AbortSignal;
}

async function settle(
  { deps: { clock } }: GateEffects,
  { gate: { stableMs }, looking, scene, ended }: Settling,
): Promise<GateOutcome> {
  const { signal, patience, either, onLook } = looking;
  let openMs: number | undefined;
  for (let fresh = true; ;) {
    const verdicts = scene.verdicts();
    onLook?.(verdicts);
    const isOpen = verdicts.every(({ open }) => open);
    const nowMs = clock.monotonicMs();
    openMs = isOpen ? (openMs ?? nowMs) : undefined;
    if (openMs !== undefined && fresh && nowMs - openMs >= stableMs)
      return { kind: 'open', verdicts, seenMs: nowMs };
    if (openMs === undefined && patience.aborted) return { kind: 'closed', verdicts };
    scene.follow(ended);
    const leftMs = openMs === undefined ? scene.dueInMs() : openMs + stableMs - nowMs;
    fresh = (await scene.change(leftMs, openMs === undefined ? either : signal)) === 'time';
    // No change was reported, but the agent may have been stopped since the last answer, so read everything again.
    if (fresh) await readNow(scene, looking);
  }
}

/** Everything that the gate depends on, as last read; `follow` keeps it up to date. */
interface Scene {
  verdicts(): readonly Verdict[];
  /**
   * Whether a node offers a service of exactly this name. Consul's health answers ignore case, but the agents do not.
   */
  isOffered(service: string): boolean;
  /** After how many milliseconds the verdicts may change by time alone; Infinity: never. */
  dueInMs(): number;
  /** Reads everything now. */
  read(options: ReadOptions): Promise<void>;
  /** Starts to watch for changes. May be called again. */
  follow(ended: AbortSignal): void;
  /** Resolves at the next change, or after `limitMs`. Throws the error that ended the watch, if one did. */
  change(limitMs: number, signal: AbortSignal): Promise<'change' | 'time'>;
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

function createScene(
  { consul, deps: { clock, random } }: GateEffects,
  gate: Gate,
  count: Looking['count'],
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
  const bell = createBell(clock);
  const followOne = async (source: Source, signal: AbortSignal) => {
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
    follow: (ended) => {
      if (followed) return;
      followed = true;
      for (const source of sources) followOne(source, ended).catch((error: unknown) => bell.fail(error));
    },
    change: (limitMs, signal) => bell.next(limitMs, signal),
  };
}
