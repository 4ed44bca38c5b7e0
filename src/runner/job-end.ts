/** The end of a run of a job: its target's final state, in the transaction that releases its slots, or alone. */
import type { RetryOptions } from '../consul/consul.ts';
import { assertNever, isRunlockError } from '../errors.ts';
import { overText } from '../events/end.ts';
import { contend, contendersOf, jitterMs } from '../jobs/contend.ts';
import type { Plan } from '../jobs/contend.ts';
import { noteEnd } from '../jobs/ledger.ts';
import type { LedgerEnd } from '../jobs/ledger.ts';
import { endTarget } from '../jobs/end.ts';
import { jobWriteRule, lookAt, requestRule } from '../jobs/read.ts';
import type { Asked, JobReader } from '../jobs/read.ts';
import { isFinal } from '../jobs/records.ts';
import type { ServedEnd } from '../jobs/served.ts';
import { final, late, reboot } from '../jobs/transactions.ts';
import type { SeenTarget } from '../jobs/transactions.ts';
import type { RunStep } from '../lock/transactions.ts';
import type { Deps } from '../platform/deps.ts';
import type { EndPart } from './part.ts';
import { endingOf } from './ran.ts';
import type { Ran } from './ran.ts';
import type { HeldSlots } from './slots.ts';

/** The run of a target. */
export interface RunOf extends JobReader, Asked {
  readonly deps: Pick<Deps, 'clock' | 'random'>;
  readonly run: string;
  readonly home: string;
  readonly stateFolder: string;
  /** The last line of the command's output; undefined: none was heard. */
  readonly lastLine: () => string | undefined;
  /** Hears why the end of a run can't be recorded in its job. */
  readonly unrecorded?: (why: string) => void;
}

/** A release may wait this long for an election, or for hundreds of others that end at the same time. */
const DEADLINE_MS = 180_000;
/** Then the node's agent does it, once this process is gone. */
const ALONE_MS = 60_000;
const REQUEST_MS = 5_000;
/** In characters, for people. */
export const LONGEST_LINE = 200;

export const rulesOf = ({ prefix, home, ref }: Pick<RunOf, 'prefix' | 'home' | 'ref'>): string =>
  `${requestRule(prefix)}, ${jobWriteRule(prefix, home, ref.principal)}`;

/** What the document of a target says of its run that has ended so. Pure. */
export function endOf(slots: HeldSlots, ran: Ran, endedAt: string): LedgerEnd {
  const { exitCode } = endingOf(slots[0], ran, ran.outcome);
  const why = whyOf(ran);
  const state = stateOf(ran);
  // The first by path is the home group.
  const holds = state === 'rebooting' && slots[0].grant.context.run.hold === 'forever';
  return {
    state,
    endedAt,
    ...(holds && { holds }),
    ...(exitCode !== undefined && { exitCode }),
    ...(why !== undefined && { why }),
  };
}

function stateOf({ outcome, cause }: Ran): LedgerEnd['state'] {
  switch (outcome) {
    case 'succeeded':
      return 'good';
    case 'failed':
      return cause?.kind === 'cancelled' ? 'cancelled' : 'failed';
    // An operator's decision, as a signal is: the node may be half done.
    case 'evicted':
    case 'interrupted':
      return 'failed';
    case 'unhealthy':
    case 'timed-out':
    case 'lost':
    case 'rebooting':
      return outcome;
    default:
      return assertNever(outcome);
  }
}

function whyOf({ outcome, cause, why, unpublished }: Ran): string | undefined {
  if (unpublished !== undefined) return unpublished;
  if (cause && 'group' in cause) return overText(cause, cause.group);
  if (cause?.kind === 'cancelled') return cause.why;
  return outcome === 'interrupted' ? 'a signal ended the run' : why;
}

/**
 * Undefined: there is no such request or job any more, it does not name this node, or can't be read: a run that has ended
 * must not keep its slots for that.
 */
export async function lookAtTarget(of: RunOf, options: RetryOptions): Promise<SeenTarget | undefined> {
  try {
    const look = await lookAt(of, of, options);
    if (look.kind === 'target') return look.target;
    of.unrecorded?.(look.kind === 'broken' ? look.why : UNRECORDED[look.kind]);
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    of.unrecorded?.(error.message);
  }
  return undefined;
}

const UNRECORDED = { gone: 'it is gone', unmeant: 'it does not name this node any more' } as const;

/** Whether the target is this run's: nobody has marked it lost. */
export const isOurs = ({ document }: SeenTarget, run: string): boolean =>
  document?.value.state === 'running' && document.value.run === run;

/** Whether this very end is written. */
const isThis = ({ document }: SeenTarget, { state, endedAt }: LedgerEnd): boolean =>
  document?.value.state === state && document.value.endedAt === endedAt;

function stepsTo({ deps, lastLine }: RunOf, target: SeenTarget, end: LedgerEnd): RunStep[] {
  const nowMs = deps.clock.now();
  const line = lastLine();
  const { state, ...ended } = end;
  const more = { ...ended, ...(line !== undefined && { lastLine: line.slice(0, LONGEST_LINE) }) };
  return state === 'rebooting'
    ? reboot(target, more)
    : final(target, { end: { ...more, state }, nowMs, isNode: true });
}

/** Of a run that has ended; `end` is noted on the disk first. */
export function jobEnd(of: RunOf, end: LedgerEnd, toEnd: (ran: Ran) => LedgerEnd): EndPart {
  const { deps, run, stateFolder, ref } = of;
  noteEnd(stateFolder, ref, { run, end });
  let others = 1;
  let isForeign = false;
  return {
    rule: rulesOf(of),
    deadlineMs: DEADLINE_MS,
    pauseMs: (refusals) => jitterMs(refusals, others, deps.random),
    steps: async (limits) => {
      const target = await lookAtTarget(of, { ...limits, retryForMs: 0 });
      isForeign = !target || !isOurs(target, run);
      if (!target || isForeign) return [];
      others = contendersOf(target);
      return stepsTo(of, target, end);
    },
    isWritten: async (limits) => {
      const target = await lookAtTarget(of, { ...limits, retryForMs: 0 });
      return target !== undefined && isThis(target, end);
    },
    unknown: 'whether its end was recorded is unknown',
    rest: async (ran, isWritten) => {
      if (isWritten && !isForeign) return;
      const now = isWritten ? end : toEnd(ran);
      if (now.state !== end.state) noteEnd(stateFolder, ref, { run, end: now });
      await endAlone(of, now).catch(() => {
        // Consul does not answer. The node's agent reads what is on the disk, once this process is gone.
      });
    },
  };
}

/**
 * Writes a target's end by itself, unless it is written: as its final state, or, where it has another by now, as what
 * people read beside that.
 * @throws RunlockError when Consul does not answer, or refuses.
 */
export async function endAlone(of: RunOf, end: LedgerEnd): Promise<void> {
  const signal = AbortSignal.timeout(ALONE_MS);
  const plan = async (): Promise<Plan<true>> => {
    const target = await lookAtTarget(of, { signal, timeoutMs: REQUEST_MS, retryForMs: 0 });
    if (!target || isThis(target, end)) return { kind: 'over', value: true };
    if (isOurs(target, of.run))
      return {
        kind: 'send',
        steps: stepsTo(of, target, end),
        value: true,
        others: contendersOf(target),
      };
    const there = target.document?.value;
    if (there?.run !== of.run || !isFinal(there.state) || there.late !== undefined)
      return { kind: 'over', value: true };
    return { kind: 'send', steps: late(target, textOf(end)), value: true, others: 1 };
  };
  await contend({ consul: of.consul, deps: of.deps, signal, rule: rulesOf(of), timeoutMs: REQUEST_MS }, plan);
}

/**
 * Ends a target whose command never began, as another run has served it. If Consul does not answer, its agent looks at the
 * same records. Never throws.
 */
export async function endServed(
  of: RunOf,
  toEnd: (target: SeenTarget) => ServedEnd | undefined,
): Promise<void> {
  const endedAt = new Date(of.deps.clock.now()).toISOString();
  const end = (target: SeenTarget) => {
    const served = toEnd(target);
    return served && { endedAt, ...served };
  };
  const signal = AbortSignal.timeout(ALONE_MS);
  await endTarget({ ...of, signal, timeoutMs: REQUEST_MS }, { end, isNode: true }).catch(() => undefined);
}

/** For people. */
const textOf = ({ state, exitCode, endedAt }: LedgerEnd): string =>
  `${state}${exitCode === undefined ? '' : `, exit ${exitCode}`}, at ${endedAt}`;
