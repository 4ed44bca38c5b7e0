/**
 * The end of a run that writes more than its record: one transaction for that and all of its groups, or nothing
 * (docs/protocol.md, "The end of a run in one transaction").
 */
import { isTransient, isWorthAgain } from '../consul/consul.ts';
import { lastWord, untilDone, untilRefused } from '../consul/retry.ts';
import { leaveSession } from '../consul/session.ts';
import { listOf, send } from '../consul/txn.ts';
import type { Step } from '../consul/txn.ts';
import { assertNever, isRunlockError } from '../errors.ts';
import type { RunlockError } from '../errors.ts';
import type { Over } from '../events/events.ts';
import { isLeft } from './decide.ts';
import type { Grant } from './head-of-queue.ts';
import {
  LEAVE,
  DEADLINE_MS,
  RETRY_MS,
  heldBy,
  keptBy,
  limits,
  retake,
  standingNow,
  toRecord,
  under,
  withLastGood,
  withSession,
} from './release.ts';
import type { Ending, Limits } from './release.ts';
import { isRecorded } from './run-record.ts';
import type { Claim, RunRecord } from './records.ts';
import { finish } from './transactions.ts';

/** What else the end of a run writes, in the transaction that records it and releases its slots. */
export interface Closing {
  /** The rules that a token needs for it; '': none. */
  readonly rule: string;
  /** Reads what it rests on, and says what is to be written now. `isFirst`: no try was refused so far. */
  steps(limits: Limits, isFirst: boolean): Promise<readonly Step<string>[]>;
  /** Whether that is written: a lost answer was a yes. */
  isWritten(limits: Limits): Promise<boolean>;
  /** The pause in milliseconds after this many refusals of its steps; undefined: a short one. */
  readonly pauseMs?: (refusals: number) => number;
  /** How long its end is worth trying, in milliseconds; undefined: as long as that of a slot. */
  readonly deadlineMs?: number;
}

/** A slot to its end. */
export interface Finishing {
  readonly holding: Grant;
  readonly ending: Ending;
}

export type Finished =
  /** Recorded in all groups, all slots released, all else written. `kept`: the claim that stays, slot by slot. */
  | { readonly kind: 'finished'; readonly kept: readonly (Claim | undefined)[] }
  /** This slot is not the run's any more. Nothing is written, and the other slots are still held. */
  | {
      readonly kind: 'lost';
      readonly group: string;
      readonly over: Over;
      readonly holdings: readonly Grant[];
    }
  /** Consul refuses, say for want of a right on a state. Nothing is written, and all slots are still held. */
  | { readonly kind: 'refused'; readonly why: string; readonly holdings: readonly Grant[] }
  /** No answer until the end: nobody knows whether it took effect. */
  | { readonly kind: 'unknown'; readonly why: string };

interface Finish {
  readonly closings: readonly Closing[];
  readonly ttlMs: number;
}

/** Sends `finish` until it is known what became of it. Has its own deadline, and never throws. */
export async function finishAll(
  slots: readonly [Finishing, ...Finishing[]],
  { closings, ttlMs }: Finish,
): Promise<Finished> {
  const { consul, deps, keys } = slots[0].holding.context;
  const rules = [
    ...slots.map(({ holding }) => holding.context.keys.rule),
    ...closings.map(({ rule }) => rule),
  ];
  const deadlines = closings.flatMap(({ deadlineMs }) => deadlineMs ?? []);
  const asked: Limits = {
    ...limits(keys, deadlines.length > 0 ? Math.max(...deadlines) : undefined),
    rule: rules.filter((rule) => rule !== '').join(', '),
  };
  let all: readonly Finishing[] = slots;
  let isFirst = true;
  let blocker: string | undefined;
  // Whether a try without an answer may have taken effect, as no look since has shown.
  let isUnsure = false;
  let kept: readonly (Claim | undefined)[] = [];
  /** Whose step was refused last, and how often in a row. */
  let contended: { readonly closing: Closing; readonly refusals: number } | undefined;
  const recordOf = lastGoods(asked);
  const finishOnce = async (): Promise<Finished | undefined> => {
    all = await Promise.all(
      all.map(async (one) => ({ ...one, holding: await withSession(one.holding, { ttlMs, ...asked }) })),
    );
    const ends = await Promise.all(
      all.map(async ({ holding, ending }) => {
        const record = under(holding, await recordOf(holding, ending));
        return { ...seatOf(holding), record, kept: keptBy(holding, record, ending.leftOn) };
      }),
    );
    kept = ends.map((end) => end.kept);
    const more = await Promise.all(closings.map((closing) => closing.steps(asked, isFirst)));
    let fault: RunlockError | undefined;
    try {
      const steps = finish(ends, more.flat());
      const result = await send(consul, steps, asked);
      if (result.kind === 'done') return { kind: 'finished', kept };
      isFirst = false;
      const own = listOf(more, result.at - (steps.length - more.flat().length));
      const closing = own === undefined ? undefined : closings[own];
      contended = closing && { closing, refusals: (contended?.refusals ?? 0) + 1 };
      if (closing) return undefined;
    } catch (error) {
      if (asked.signal.aborted || !isWorthAgain(error)) throw error;
      fault = error;
      contended = undefined;
      if (isTransient(error)) isUnsure = true;
      // Consul may have refused a document that was read from a state; what is written instead is known to fit.
      else isFirst = false;
    }
    const looks = await Promise.all(all.map(({ holding }) => look(holding, asked)));
    all = all.map((one, i) => ({ ...one, holding: looks[i]?.holding ?? one.holding }));
    blocker = looks.find((one) => one.blocker !== undefined)?.blocker;
    const lost = looks.find((one) => one.over !== undefined);
    if (lost?.over) {
      // The answer was lost, and it was a yes: only this transaction records the run, or writes the rest.
      if (lost.isRecorded || (await isAnyWritten(closings, asked))) return { kind: 'finished', kept };
      const { group } = lost.holding.context.keys;
      return { kind: 'lost', group, over: lost.over, holdings: all.map(({ holding }) => holding) };
    }
    isUnsure = false;
    if (fault !== undefined) throw fault;
    return undefined;
  };
  // What is refused stays so, most likely; only Consul itself may be away for longer.
  const isWorth = untilRefused(deps.clock, DEADLINE_MS);
  const pauseMs = () => contended?.closing.pauseMs?.(contended.refusals) ?? RETRY_MS;
  const done = await untilDone(deps.clock, { signal: asked.signal, pauseMs, isWorth }, finishOnce).catch(
    (error: unknown): Finished => {
      const why = blocker === undefined ? lastWord(consul, error, 'no answer') : heldBy(blocker);
      // `config`: Consul or a proxy does not accept the request, for example because it is too large (413).
      const isRefused = isRunlockError(error, 'forbidden', 'incompatible', 'refused', 'config') && !isUnsure;
      if (!isRefused && blocker === undefined) return { kind: 'unknown', why };
      return { kind: 'refused', why, holdings: all.map(({ holding }) => holding) };
    },
  );
  if (done.kind === 'finished' || done.kind === 'unknown')
    await Promise.all(all.map(({ holding }) => leaveSession(holding.context, holding.session, LEAVE)));
  return done;
}

/** Makes the record of a run in each group; reads the time of the last good run once. */
function lastGoods(asked: Limits) {
  const records = new Map<string, RunRecord>();
  return async (holding: Grant, ending: Ending): Promise<RunRecord> => {
    const { group } = holding.context.keys;
    const record =
      records.get(group) ?? (await withLastGood(holding.context, toRecord(holding, ending), asked));
    records.set(group, record);
    return record;
  };
}

const isAnyWritten = async (closings: readonly Closing[], asked: Limits): Promise<boolean> =>
  (await Promise.all(closings.map((closing) => closing.isWritten(asked)))).includes(true);

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
    holding,
    over: { kind: 'lost', why },
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
