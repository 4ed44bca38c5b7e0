/**
 * Changes of a target by others than its run: the node's agent, and who looks at the job. Each reads, decides by what it
 * read, sends, and does so again while others change the job at the same time.
 */
import type { RunStep, SeenKey } from '../lock/transactions.ts';
import { contend, contendersOf } from './contend.ts';
import type { Contender, Plan } from './contend.ts';
import type { Stage, TargetDocument } from './documents.ts';
import type { JobRef } from './keys.ts';
import { jobWriteRule, lookAt, placeOf, requestRule } from './read.ts';
import type { Known, Look } from './read.ts';
import { decodeStage, encodeStage, isFinal } from './records.ts';
import { NO_STAGE, isPast, isUnderWay, shownState, stopped } from './stage.ts';
import type { ShownState, Stop } from './stage.ts';
import { accept, drop, dropOrphan, final, lost, note, stop } from './transactions.ts';
import type { End, SeenJob, SeenTarget } from './transactions.ts';

/** Whose part of which job. */
export interface OfTarget extends Omit<Contender, 'rule'> {
  readonly prefix: string;
  readonly ref: JobRef;
  readonly node: string;
  readonly known?: Known;
  /** What the change follows from, if that has just been read: saves the first read. */
  readonly seen?: Look;
}

export interface EndRequest {
  /** Called with the target as it is now; undefined: it is not to be ended any more. */
  readonly end: (target: SeenTarget) => End | undefined;
  /** The node itself: its pointer goes too. */
  readonly isNode?: true;
  /** Of a run that is lost: its claims, as they were seen without a lock for long enough. */
  readonly owners?: readonly SeenKey[];
}

export type EndResult =
  | { readonly kind: 'ended'; readonly state: ShownState }
  /** It had this final state before, or has it by the stop of its job. */
  | { readonly kind: 'already'; readonly state: ShownState }
  /** The target is not what the end was for. */
  | { readonly kind: 'changed'; readonly target: SeenTarget }
  | Nothing;

/** The request is gone, or does not name this node. */
interface Nothing {
  readonly kind: 'none';
  readonly look: Exclude<Look, { kind: 'target' }>;
}

/**
 * Gives a target its final state, unless it has one.
 * @throws RunlockError as `lookAt`, and when the rights to write are missing; the last fault when the signal aborts.
 */
export function endTarget(of: OfTarget, { end, isNode, owners }: EndRequest): Promise<EndResult> {
  let sent: End | undefined;
  return change(of, (target): Plan<EndResult> => {
    const state = shownState(target.document?.value, target.targetStage, target.stage.value);
    const isEnded = isFinal(state) || state === 'not-started';
    // An earlier try without an answer took effect.
    if (isEnded && sent && isSame(sent, target.document?.value))
      return { kind: 'over', value: { kind: 'ended', state } };
    if (isEnded) return { kind: 'over', value: { kind: 'already', state } };
    const now = end(target);
    if (!now) return { kind: 'over', value: { kind: 'changed', target } };
    sent = now;
    const ended = { end: now, nowMs: of.deps.clock.now(), ...(isNode && { isNode }) };
    const steps = owners ? lost(target, owners, ended) : final(target, ended);
    const done = send<EndResult>(target, steps, { kind: 'ended', state: now.state });
    // Its claim has changed: it is not lost.
    return { ...done, unless: { obstacle: 'owner', value: { kind: 'changed', target } } };
  });
}

const isSame = ({ state, endedAt }: End, there: TargetDocument | undefined): boolean =>
  there?.state === state && there.endedAt === endedAt;

export type AcceptResult =
  | { readonly kind: 'accepted' }
  /** The job is not open, the request is past its end, or the target is further already. */
  | { readonly kind: 'not-now'; readonly target: SeenTarget }
  | Nothing;

/** The node takes its part on. @throws as `endTarget`. */
export function acceptTarget(of: OfTarget): Promise<AcceptResult> {
  return change(of, (target): Plan<AcceptResult> => {
    const accepted = { kind: 'accepted' } as const;
    if (target.document?.value.state === 'accepted') return { kind: 'over', value: accepted };
    const nowMs = of.deps.clock.now();
    const isOpen = target.stage.value.kind === 'open' && !isPast(target.spec.value.until, nowMs);
    if (!isOpen || target.document || target.targetStage === NO_STAGE)
      return { kind: 'over', value: { kind: 'not-now', target } };
    return send(target, accept(target, new Date(nowMs).toISOString()), accepted);
  });
}

/** Says what a target waits for that was accepted; no news of one that is further. @throws as `endTarget`. */
export async function noteTarget(of: OfTarget, why: string): Promise<void> {
  await change(of, (target): Plan<true> => {
    const { state, why: there } = target.document?.value ?? {};
    const isWaiting = target.stage.value.kind === 'open' && (state === 'accepted' || state === 'waiting');
    if (!isWaiting || there === why) return { kind: 'over', value: true };
    return send(target, note(target, why), true);
  });
}

export type DropResult =
  { readonly kind: 'dropped' } | { readonly kind: 'needed'; readonly target: SeenTarget };

/**
 * The node removes its pointer if nothing is left to do for it: the request is gone or does not name the node, the
 * target has ended, or its job was stopped before it began. @throws as `endTarget`.
 */
export function dropPointer(of: OfTarget): Promise<DropResult> {
  const dropped = { kind: 'dropped' } as const;
  const looking = lookingAt(of);
  return contended(of, async (): Promise<Plan<DropResult>> => {
    const look = await looking();
    const { pointer } = look;
    if (!pointer) return { kind: 'over', value: dropped };
    if (look.kind !== 'target')
      return { kind: 'send', steps: dropOrphan(pointer), value: dropped, others: 1 };
    const { target } = look;
    const { document, stage } = target;
    const isOver = document && isFinal(document.value.state);
    const isStopped = stage.value.kind === 'stopped' && !(document && isUnderWay(document.value));
    if (!isOver && !isStopped) return { kind: 'over', value: { kind: 'needed', target } };
    return send(target, drop(target, isOver ? 'document' : 'stage', pointer.index), dropped);
  });
}

/** Whose job is to be stopped. */
export interface OfJob extends Omit<Contender, 'rule'> {
  readonly prefix: string;
  readonly ref: JobRef;
  readonly home: string;
}

/** `before`: undefined: there is no such job. */
export type StopResult =
  | { readonly kind: 'stopped'; readonly stage: Stage }
  | { readonly kind: 'already'; readonly stage: Stage }
  | { readonly kind: 'none' };

/** Stops a job, unless it has ended. @throws as `endTarget`. */
export function stopJob(of: OfJob, wish: Stop): Promise<StopResult> {
  const { consul, prefix, ref, home, signal } = of;
  const place = placeOf(prefix, home, ref);
  const rule = jobWriteRule(prefix, home, ref.principal);
  let sent: Stage | undefined;
  return contend({ ...of, rule }, async (): Promise<Plan<StopResult>> => {
    const { entry } = await consul.get(place.keys.stage, { signal, rule });
    if (!entry) return { kind: 'over', value: { kind: 'none' } };
    const seen = { value: decodeStage(entry), index: entry.modifyIndex };
    const after = stopped(seen.value, wish, of.deps.clock.now());
    if (!after) {
      // A lost answer was a yes.
      const kind = sent !== undefined && entry.value === encodeStage(sent) ? 'stopped' : 'already';
      return { kind: 'over', value: { kind, stage: seen.value } };
    }
    sent = after;
    const steps = stop({ ...place, stage: seen }, after);
    return { kind: 'send', steps, value: { kind: 'stopped', stage: after }, others: 1 };
  });
}

const send = <T>(
  target: SeenJob,
  steps: readonly RunStep[],
  value?: T,
): Extract<Plan<T>, { kind: 'send' }> => ({
  kind: 'send',
  steps,
  others: contendersOf(target),
  ...(value !== undefined && { value }),
});

const contended = <T>(of: OfTarget, plan: () => Promise<Plan<T>>): Promise<T> =>
  contend(
    {
      ...of,
      rule: `${requestRule(of.prefix)}, ${jobWriteRule(of.prefix, of.known?.home ?? '<group>', of.ref.principal)}`,
    },
    plan,
  );

/** Each look is a new one, but for one that is given. */
function lookingAt(of: OfTarget): () => Promise<Look> {
  let given = of.seen;
  return () => {
    const look = given ? Promise.resolve(given) : lookAt(of, of, { signal: of.signal });
    given = undefined;
    return look;
  };
}

function change<T>(of: OfTarget, decide: (target: SeenTarget) => Plan<T>): Promise<T | Nothing> {
  const looking = lookingAt(of);
  return contended<T | Nothing>(of, async () => {
    const look = await looking();
    if (look.kind !== 'target') return { kind: 'over', value: { kind: 'none', look } };
    return decide(look.target);
  });
}
