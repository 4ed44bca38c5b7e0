/**
 * Where a job is, and what its targets became: every decision of a job that needs no Consul (docs/protocol.md,
 * "Jobs"). Pure. Times are milliseconds since 1970 unless a name says otherwise.
 */
import { CLOCK_DIFFERENCE_MS } from '../lock/decide.ts';
import { FAILURES } from './documents.ts';
import type { FinalState, Spec, Stage, StopReason, Tally, TargetDocument, TargetState } from './documents.ts';
import { isFinal } from './records.ts';

/** What of a request decides how its job goes on. */
export type Rules = Pick<Spec, 'stages' | 'maxFailures' | 'offline' | 'pauseMs'>;

export type Verdict =
  | { readonly kind: 'open'; readonly stage: number }
  | { readonly kind: 'stopped'; readonly why: Extract<StopReason, 'failures' | 'unproven'> }
  | { readonly kind: 'done' };

/** The stage of a target that was offline at the start. */
export const NO_STAGE = -1;

/** Before any target has ended. `offline`: targets that were offline at the start and belong to no stage. */
export function firstTally({ stages }: Pick<Rules, 'stages'>, offline: number): Tally {
  return {
    rev: 0,
    stages: stages.map(() => ({ final: 0, good: 0 })),
    states: offline > 0 ? { offline } : {},
  };
}

/** How many targets count against the limit of failures. */
export function failuresOf({ states }: Tally, { offline }: Pick<Rules, 'offline'>): number {
  const counted: readonly FinalState[] =
    offline === 'fail' ? [...FAILURES, 'refused', 'offline', 'expired', 'cancelled'] : FAILURES;
  return counted.reduce((sum, state) => sum + (states[state] ?? 0), 0);
}

/** Targets of this stage have all ended, or there are none. */
const isComplete = (tally: Tally, { stages }: Rules, stage: number): boolean =>
  (tally.stages[stage]?.final ?? 0) >= (stages[stage] ?? 0);

/**
 * Where a job goes on: in the first stage that is not complete, which is not always the next one. A stage with targets
 * of which none was good has proven nothing, so none after it opens.
 */
export function first(tally: Tally, rules: Rules): Verdict {
  if (failuresOf(tally, rules) > rules.maxFailures) return { kind: 'stopped', why: 'failures' };
  const stage = rules.stages.findIndex((_, i) => !isComplete(tally, rules, i));
  if (stage === -1) return { kind: 'done' };
  const isProven = rules.stages
    .slice(0, stage)
    .every((size, i) => size === 0 || (tally.stages[i]?.good ?? 0) > 0);
  return isProven ? { kind: 'open', stage } : { kind: 'stopped', why: 'unproven' };
}

/**
 * What a final state makes of the stage: `tally` has counted it already. Undefined: the stage stays as it is. Of a job
 * that is still being written, only too many failures stop it.
 */
export function next(stage: Stage, tally: Tally, { rules, nowMs }: Moment): Stage | undefined {
  const isTooMany = failuresOf(tally, rules) > rules.maxFailures;
  if (stage.kind === 'stopped' || stage.kind === 'done') return undefined;
  if (!isTooMany && (stage.kind === 'fill' || !isComplete(tally, rules, stage.stage))) return undefined;
  return toStage(first(tally, rules), { rev: stage.rev + 1, nowMs, pauseMs: rules.pauseMs });
}

export interface Moment {
  readonly rules: Rules;
  readonly nowMs: number;
}

/** The stage with which a job begins that is written completely. */
export const ready = (stage: Stage, tally: Tally, { rules, nowMs }: Moment): Stage =>
  toStage(first(tally, rules), { rev: stage.rev + 1, nowMs, pauseMs: 0 });

function toStage(verdict: Verdict, { rev, nowMs, pauseMs }: { rev: number; nowMs: number; pauseMs: number }) {
  const now = new Date(nowMs).toISOString();
  if (verdict.kind === 'done') return { rev, kind: 'done', at: now } satisfies Stage;
  if (verdict.kind === 'stopped') return { rev, kind: 'stopped', why: verdict.why, at: now } satisfies Stage;
  return {
    rev,
    kind: 'open',
    stage: verdict.stage,
    since: now,
    ...(pauseMs > 0 && { notBefore: new Date(nowMs + pauseMs).toISOString() }),
  } satisfies Stage;
}

/** An operator stops a job, or who looks finds that its time is over. */
export interface Stop {
  readonly why: Extract<StopReason, 'cancelled' | 'expired' | 'gone'>;
  readonly by?: string;
  readonly reason?: string;
  readonly kill?: true;
}

/** Undefined: the job has ended already. A later wish to end its runs too is still taken. */
export function stopped(stage: Stage, stop: Stop, nowMs: number): Stage | undefined {
  if (stage.kind === 'done') return undefined;
  if (stage.kind === 'stopped')
    return stop.kill && !stage.kill ? { ...stage, rev: stage.rev + 1, kill: true } : undefined;
  return { rev: stage.rev + 1, kind: 'stopped', at: new Date(nowMs).toISOString(), ...stop };
}

/** Counts one target that has ended. `stage`: the target's. */
export function countFinal(tally: Tally, stage: number, state: FinalState): Tally {
  return {
    rev: tally.rev + 1,
    stages: tally.stages.map(({ final, good }, i) =>
      i === stage ? { final: final + 1, good: good + (state === 'good' ? 1 : 0) } : { final, good },
    ),
    states: { ...tally.states, [state]: (tally.states[state] ?? 0) + 1 },
  };
}

/**
 * `not-started`: the job was stopped before. Nobody writes it: it follows from the stage. `unreadable`: what stands in its
 * key is no target's document.
 */
export type ShownState = TargetState | 'queued' | 'not-started' | 'unreadable';

/** What became of a target so far. One without a final state in a job that is stopped ends there and then. */
export function shownState(
  document: Pick<TargetDocument, 'state'> | undefined,
  targetStage: number,
  stage: Stage,
): ShownState {
  if (document && (isFinal(document.state) || isUnderWay(document))) return document.state;
  if (targetStage === NO_STAGE) return 'offline';
  if (stage.kind !== 'stopped') return document?.state ?? 'queued';
  return stage.why === 'cancelled' || stage.why === 'expired' ? stage.why : 'not-started';
}

/** A command of it runs, or its host is rebooting after one: a stop does not end it. */
export const isUnderWay = ({ state }: Pick<TargetDocument, 'state'>): boolean =>
  state === 'running' || state === 'rebooting';

/** Whether a target in this state changes no more. */
export const isEnded = (state: ShownState): boolean => state === 'not-started' || isFinal(state);

/** Nothing of the job happens any more. `underWay`: targets that run or reboot. */
export const isOver = (stage: Stage, underWay: number): boolean =>
  stage.kind === 'done' || (stage.kind === 'stopped' && underWay === 0);

/** Why a target may not start now. `not-yet`: it need only wait. */
export type NotNow =
  | { readonly kind: 'not-yet'; readonly why: 'fill' | 'stage' }
  /** `leftMs`: until the pause before the stage is over. */
  | { readonly kind: 'not-yet'; readonly why: 'pause'; readonly leftMs: number }
  | { readonly kind: 'never'; readonly why: 'stopped' | 'done' | 'expired' | 'target' };

/** Undefined: a target may start its command now. */
export function whyNotStart(
  { stage, targetStage, document, until, delayMs = 0 }: Startable,
  nowMs: number,
): NotNow | undefined {
  if (stage.kind === 'stopped' || stage.kind === 'done') return { kind: 'never', why: stage.kind };
  if (document && document.state !== 'accepted' && document.state !== 'waiting')
    return { kind: 'never', why: 'target' };
  if (isPast(until, nowMs)) return { kind: 'never', why: 'expired' };
  if (stage.kind === 'fill') return { kind: 'not-yet', why: 'fill' };
  if (targetStage === NO_STAGE) return { kind: 'never', why: 'target' };
  if (!document || stage.stage < targetStage) return { kind: 'not-yet', why: 'stage' };
  const isLater = stage.notBefore !== undefined || delayMs > 0;
  const leftMs = isLater ? Date.parse(stage.notBefore ?? stage.since) + delayMs - nowMs : 0;
  return leftMs > 0 ? { kind: 'not-yet', why: 'pause', leftMs } : undefined;
}

export interface Startable {
  readonly stage: Stage;
  readonly targetStage: number;
  /** Undefined: it has not accepted yet. */
  readonly document: Pick<TargetDocument, 'state'> | undefined;
  /** The end of the request. */
  readonly until: string;
  /** The target's part of the splay: `delayOf`. */
  readonly delayMs?: number;
}

/** A node's part of a splay, the same each time, in milliseconds. */
export const delayOf = (node: string, splayMs = 0): number => (splayMs === 0 ? 0 : hashOf(node) % splayMs);

/** FNV-1a, 32 bits. */
export function hashOf(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of Buffer.from(text)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  return value;
}

/** By the clock of the node itself: it ends only its own part. */
export const isPast = (until: string, nowMs: number): boolean => Date.parse(until) <= nowMs;

/** By anybody's clock, so with time for clocks that differ: the whole job may be stopped as expired. */
export const isExpired = (until: string, nowMs: number): boolean =>
  isPast(until, nowMs - CLOCK_DIFFERENCE_MS);
