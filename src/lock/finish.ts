/**
 * The end of a good run that publishes states: one transaction for all of its groups, or, if the run can't be recorded
 * as good in all of them, nothing (docs/protocol.md, "The end of a run that publishes").
 */
import { isTransient, isWorthAgain } from '../consul/consul.ts';
import { lastWord, untilDone } from '../consul/retry.ts';
import { leaveSession } from '../consul/session.ts';
import { send } from '../consul/txn.ts';
import { assertNever, isRunlockError } from '../errors.ts';
import type { RunlockError } from '../errors.ts';
import type { Over } from '../events/events.ts';
import { isLeft } from './decide.ts';
import type { Grant } from './head-of-queue.ts';
import {
  LEAVE,
  RETRY_MS,
  heldBy,
  limits,
  retake,
  standingNow,
  toRecord,
  under,
  withSession,
} from './release.ts';
import type { Ending, Limits } from './release.ts';
import { isRecorded } from './run-record.ts';
import { finish } from './transactions.ts';
import type { StateChange } from './transactions.ts';

/** The states of a run that ends well. */
export interface Publishing {
  /** Reads the states, and says what is to be done to each now. `isFirst`: no try was refused so far. */
  changes(limits: Limits, isFirst: boolean): Promise<readonly StateChange[]>;
  /** Whether one of the states was published by this run: a lost answer was a yes. */
  isPublished(limits: Limits): Promise<boolean>;
  /** The rules that a token needs for them. */
  readonly rule: string;
}

/** A slot to its end. */
export interface Finishing {
  readonly holding: Grant;
  readonly ending: Ending;
}

export type Finished =
  /** Recorded as good in all groups, all slots released, all states published. */
  | { readonly kind: 'finished' }
  /** This slot is not the run's any more. Nothing is published, and the other slots are still held. */
  | {
      readonly kind: 'lost';
      readonly group: string;
      readonly over: Over;
      readonly holdings: readonly Grant[];
    }
  /** Consul refuses, say for want of a right on a state. Nothing is published, and all slots are still held. */
  | { readonly kind: 'refused'; readonly why: string; readonly holdings: readonly Grant[] }
  /** No answer until the end: nobody knows whether it took effect. */
  | { readonly kind: 'unknown'; readonly why: string };

/** Sends `finish` until it is known what became of it. Has its own deadline, and never throws. */
export async function finishAll(
  slots: readonly [Finishing, ...Finishing[]],
  publishing: Publishing,
  ttlMs: number,
): Promise<Finished> {
  const { consul, deps } = slots[0].holding.context;
  const rules = [...slots.map(({ holding }) => holding.context.keys.rule), publishing.rule];
  const asked: Limits = { ...limits(slots[0].holding.context.keys), rule: rules.join(', ') };
  let all: readonly Finishing[] = slots;
  let isFirst = true;
  let blocker: string | undefined;
  // Whether a try without an answer may have taken effect, as no look since has shown.
  let isUnsure = false;
  const finishOnce = async (): Promise<Finished | undefined> => {
    all = await Promise.all(
      all.map(async (one) => ({ ...one, holding: await withSession(one.holding, { ttlMs, ...asked }) })),
    );
    const changes = await publishing.changes(asked, isFirst);
    let fault: RunlockError | undefined;
    try {
      const ends = all.map(({ holding, ending }) => ({
        ...seatOf(holding),
        record: under(holding, toRecord(holding, ending)),
      }));
      const result = await send(consul, finish(ends, changes), asked);
      if (result.kind === 'done') return { kind: 'finished' };
      isFirst = false;
      if (result.obstacle === 'state') return undefined;
    } catch (error) {
      if (asked.signal.aborted || !isWorthAgain(error)) throw error;
      fault = error;
      if (isTransient(error)) isUnsure = true;
      // Consul may have refused a document that was read from a state; what is written instead is known to fit.
      else isFirst = false;
    }
    const looks = await Promise.all(all.map(({ holding }) => look(holding, asked)));
    all = all.map((one, i) => ({ ...one, holding: looks[i]?.holding ?? one.holding }));
    blocker = looks.find((one) => one.blocker !== undefined)?.blocker;
    const lost = looks.find((one) => one.over !== undefined);
    if (lost?.over) {
      // The answer was lost, and it was a yes: only this transaction records the run, or publishes.
      if (lost.isRecorded || (await publishing.isPublished(asked))) return { kind: 'finished' };
      const { group } = lost.holding.context.keys;
      return { kind: 'lost', group, over: lost.over, holdings: all.map(({ holding }) => holding) };
    }
    isUnsure = false;
    if (fault !== undefined) throw fault;
    return undefined;
  };
  const done = await untilDone(
    deps.clock,
    { signal: asked.signal, pauseMs: () => RETRY_MS },
    finishOnce,
  ).catch((error: unknown): Finished => {
    const why = blocker === undefined ? lastWord(consul, error, 'no answer') : heldBy(blocker);
    // `config`: Consul or a proxy does not accept the request, for example because it is too large (413).
    const isRefused = isRunlockError(error, 'forbidden', 'incompatible', 'refused', 'config') && !isUnsure;
    if (!isRefused && blocker === undefined) return { kind: 'unknown', why };
    return { kind: 'refused', why, holdings: all.map(({ holding }) => holding) };
  });
  if (done.kind === 'finished' || done.kind === 'unknown')
    await Promise.all(all.map(({ holding }) => leaveSession(holding.context, holding.session, LEAVE)));
  return done;
}

const seatOf = ({ context, session, slot, owner }: Grant) => ({
  seat: { keys: context.keys, session: session.id, slot },
  index: owner.index,
});

interface Looked {
  readonly holding: Grant;
  readonly blocker?: string;
  /** The slot is not the run's any more. */
  readonly over?: Over;
  /** The run is recorded there. */
  readonly isRecorded?: boolean;
}

/** Reads the slot after a `finish` that was refused or had no answer, and takes the lock back if it is missing. */
async function look(holding: Grant, asked: Limits): Promise<Looked> {
  const { context } = holding;
  const { node, id: run } = context.run;
  const { now } = await standingNow(holding, asked);
  const lose = async (why: string): Promise<Looked> => ({
    ...{ holding, over: { kind: 'lost', why } },
    isRecorded: await isRecorded(context, { node, run }, { ...asked, retryForMs: 0 }),
  });
  switch (now.kind) {
    case 'mine':
      return { holding: { ...holding, owner: now.owner } };
    case 'gone':
      return lose('its claim is gone');
    case 'foreign':
      return lose(now.owner ? `its claim names ${now.owner.claim.node}` : 'its claim was overwritten');
    case 'evicted': {
      const over = { kind: 'evicted', by: now.owner.claim.by ?? 'an operator' } as const;
      return { holding: { ...holding, owner: now.owner }, over };
    }
    case 'unlocked':
      // Somebody, or an import, put a claim there that says that the run has ended.
      if (isLeft(now.owner.claim)) return lose(`its claim says ${now.owner.claim.state}`);
      return retake(holding, now.owner, asked);
    default:
      return assertNever(now);
  }
}
