/** Waiting until the health gate is open, and looking again once there is a slot (docs/adr/0014-health-gate.md). */
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
  /** How long it must have been open, in milliseconds; 0: one look is enough. */
  readonly stableMs: number;
  /** The groups in which others may run at the same time: they count as offline. */
  readonly groups?: readonly GateGroup[];
  /** The services that the node was seen to offer; each look adds to it. */
  readonly seenHere: Set<string>;
}

/** Its time ends the wait for a closed gate; one that is open is looked at to the end. */
export interface GateWaiting extends Waiting {
  /** Hears every look; a changed set of peers among them. */
  readonly onLook?: (verdicts: readonly Verdict[]) => void;
  /** Services that somebody has to offer at the first look: a name that is wrong is nothing to wait for. */
  readonly mustBeOffered?: readonly string[];
}

export type GateOutcome =
  /** `seenMs`: when it was last seen open, on the monotonic clock. */
  | { readonly kind: 'open'; readonly verdicts: readonly Verdict[]; readonly seenMs: number }
  | { readonly kind: 'closed'; readonly verdicts: readonly Verdict[] };

/**
 * Before a slot is asked for: waits until the gate is open in two looks, `stableMs` apart, and was not seen closed in
 * between. Every other node that runs in the group counts as offline.
 * @throws RunlockError when Consul refuses, or does not answer at the end of the patience; `config` for a service that
 * must be offered and is not.
 */
export function waitOpen(effects: GateEffects, gate: Gate, waiting: GateWaiting): Promise<GateOutcome> {
  return look(effects, gate, {
    ...waiting,
    trying: waiting.patience,
    count: ({ nodes }) => ({ running: nodes }),
  });
}

/**
 * With the slot: looks again, and for `stableMs` if the last open look is older than that. Only those count as running
 * that had their slots before: of two that were granted theirs at once the younger yields, and not both.
 */
export async function confirmOpen(
  effects: GateEffects,
  gate: Gate,
  { signal, seenMs, onLook, trying = AbortSignal.abort() }: Confirming,
): Promise<GateOutcome> {
  const { clock } = effects.deps;
  const isRecent = seenMs !== undefined && clock.monotonicMs() - seenMs <= gate.stableMs;
  // Others wait for the slot, and perhaps for the lock of the gate.
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

/** Beside `stableMs`, for Consul to answer; then it is asked once more, as at the first contact. */
const ANSWER_MS = 30_000;

/** In the queue a gate counts as closed when it was closed in two looks that are so far apart. */
const CLOSED_MS = 1_000;

/**
 * While the run waits in the queue: resolves when the gate is closed, for more than the runs that it waits for there
 * anyway. Looks first after a while: whoever gets a slot by then has nothing to leave.
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
  /** As `Looking` has it; unless given it has aborted. */
  readonly trying?: AbortSignal;
}

type Looking = GateWaiting & {
  /** While it lasts a Consul that does not answer is tried again. */
  readonly trying: AbortSignal;
  readonly count: (running: Running) => Counted;
};

/** How those who run in the group are counted. */
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

/** A Consul that is away is waited for as long as a slot would be; then it is asked once more, as at the first contact. */
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
  /** Ends with the look. */
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
    // Nothing has changed, so it is said: what was read last can be as old as the connection to a stopped agent.
    if (fresh) await readNow(scene, looking);
  }
}

/** What is known of all that the gate depends on; it is kept up to date while it is followed. */
interface Scene {
  verdicts(): readonly Verdict[];
  /** Whether anybody offers it by exactly this name: the agents know no other, and Consul's answer takes any case. */
  isOffered(service: string): boolean;
  /** When the verdicts may change although nothing else does, in milliseconds; Infinity: never. */
  dueInMs(): number;
  /** Reads everything now. */
  read(options: ReadOptions): Promise<void>;
  /** From now on every change is seen. May be called again. */
  follow(ended: AbortSignal): void;
  /** Resolves at the next change, or after `limitMs`. Throws what ended the following. */
  change(limitMs: number, signal: AbortSignal): Promise<'change' | 'time'>;
}

interface Source {
  /** Of what was read last; 0: nothing was. */
  index: number;
  readonly read: (options: ReadOptions) => Promise<Found>;
}

interface Found {
  readonly index: number;
  /** Makes it what is known. */
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
  /** Each node that offers the services may wait for their gate too. */
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
      // All at once: an older answer that comes late is not in what is decided by now.
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
