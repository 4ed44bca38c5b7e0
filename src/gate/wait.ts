/** Waits until the health gate is open, and checks it again once the run has a slot (docs/adr/0014-health-gate.md). */
import type { Waiting } from '../platform/deps.ts';
import { FOR_EVER_MS, createBell } from './bell.ts';
import type { Verdict } from './decide.ts';
import type { Running } from './peers.ts';
import { createScene } from './scene.ts';
import type { Count, Gate, GateEffects, Scene } from './scene.ts';
import { refuseServices } from './unknown.ts';
import { confirmAll, untilOpen } from './until-open.ts';
import type { Reason } from './until-open.ts';

interface Also {
  /** What the run waits for besides the gate. */
  readonly also?: readonly Reason[];
  /** Called with the result of every look. */
  readonly onLook?: (verdicts: readonly Verdict[]) => void;
}

/** The end of the patience ends the wait for a closed gate. An open gate is still watched until it counts as stable. */
export interface GateWaiting extends Waiting, Also {
  /** Services that some node has to offer at the first look, because waiting does not help against a wrong name. */
  readonly mustBeOffered?: readonly string[];
}

export type GateOutcome =
  /** `seenMs`: when the gate was last seen open, on the monotonic clock. */
  | { readonly kind: 'open'; readonly verdicts: readonly Verdict[]; readonly seenMs: number }
  /** With `also`, the gate itself may be open. */
  | { readonly kind: 'closed'; readonly verdicts: readonly Verdict[] };

/**
 * For use before asking for a slot: waits until the gate is open in two looks, `stableMs` apart, and was not seen
 * closed in between. Every other node that runs in the group counts as offline.
 * @throws RunlockError when Consul refuses, or does not answer at the end of the patience; `config` for a service
 * that must be offered and is not.
 */
export async function waitOpen(
  effects: GateEffects,
  gate: Gate,
  { also = [], onLook, mustBeOffered = [], ...waiting }: GateWaiting,
): Promise<GateOutcome> {
  const count = ({ nodes }: Running) => ({ running: nodes });
  const { scene, reasons } = reasonsOf(effects, gate, { count, also, mustBeOffered });
  if (reasons.length === 0) return openNow(effects);
  const look = onLook && (() => onLook(scene.verdicts()));
  const looking = { ...waiting, trying: waiting.patience, onLook: look };
  return outcomeOf(scene, await untilOpen(effects.deps.clock, reasons, looking));
}

/**
 * For use once the run has its slot: looks again, and for `stableMs` if the last open look is older than that. Only
 * nodes that got their slots earlier count as running, so that of two nodes with new slots only the later one yields.
 */
export async function confirmOpen(
  effects: GateEffects,
  gate: Gate,
  { signal, seenMs, onLook, also = [], trying }: ConfirmingGate,
): Promise<GateOutcome> {
  const { clock } = effects.deps;
  const isRecent = seenMs !== undefined && clock.monotonicMs() - seenMs <= gate.stableMs;
  const count = ({ before }: Running) => ({ running: before });
  const asked = isRecent ? { ...gate, stableMs: 0 } : gate;
  const { scene, reasons } = reasonsOf(effects, asked, { count, also, mustBeOffered: [] });
  if (reasons.length === 0) return openNow(effects);
  const look = onLook && (() => onLook(scene.verdicts()));
  return outcomeOf(scene, await confirmAll(clock, reasons, { signal, trying, onLook: look }));
}

interface ConfirmingGate extends Also {
  readonly signal: AbortSignal;
  readonly seenMs?: number;
  /** As in `Confirming`. */
  readonly trying?: AbortSignal;
}

/** A run without services to look at has no gate. */
const openNow = ({ deps }: GateEffects): GateOutcome => ({
  kind: 'open',
  verdicts: [],
  seenMs: deps.clock.monotonicMs(),
});

const outcomeOf = (scene: Scene, seenMs: number | undefined): GateOutcome =>
  seenMs === undefined
    ? { kind: 'closed', verdicts: scene.verdicts() }
    : { kind: 'open', verdicts: scene.verdicts(), seenMs };

interface Asked {
  readonly count: Count;
  readonly also: readonly Reason[];
  readonly mustBeOffered: readonly string[];
}

function reasonsOf(effects: GateEffects, gate: Gate, { count, also, mustBeOffered }: Asked) {
  const scene = createScene(effects, gate, count);
  let isFirst = true;
  const reason: Reason = {
    stableMs: gate.stableMs,
    isOpen: () => scene.verdicts().every(({ open }) => open),
    dueInMs: () => scene.dueInMs(),
    follow: (bell, ended) => scene.follow(bell, ended),
    read: async (options) => {
      await scene.read(options);
      const unknown = isFirst ? mustBeOffered.filter((service) => !scene.isOffered(service)) : [];
      isFirst = false;
      if (unknown.length > 0) await refuseServices(effects.consul, unknown, options.signal);
    },
  };
  return { scene, reasons: gate.services.length === 0 ? also : [reason, ...also] };
}

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
  const scene = createScene(effects, gate, ({ all }) => ({ waitedFor: all }));
  const bell = createBell(clock);
  const done = new AbortController();
  try {
    await scene.read({ signal });
    scene.follow(bell, AbortSignal.any([signal, done.signal]));
    let sinceMs: number | undefined;
    for (let fresh = true; ;) {
      const verdicts = scene.verdicts();
      const isClosed = verdicts.some(({ open }) => !open);
      const nowMs = clock.monotonicMs();
      sinceMs = isClosed ? (sinceMs ?? nowMs) : undefined;
      if (sinceMs !== undefined && fresh && nowMs - sinceMs >= CLOSED_MS) return verdicts;
      const leftMs =
        sinceMs === undefined ? scene.dueInMs() : Math.min(scene.dueInMs(), sinceMs + CLOSED_MS - nowMs);
      fresh = (await bell.next(Math.max(0, leftMs), signal)) === 'time';
      if (fresh) await scene.read({ signal });
    }
  } finally {
    done.abort();
  }
}
