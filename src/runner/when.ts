/**
 * A run with conditions: it waits for them without a slot, and looks at them again with all of its slots
 * (docs/protocol.md, "Conditions"). Loaded for such runs only.
 */
import type { Condition } from '../conditions/parse.ts';
import type { Judged } from '../conditions/judge.ts';
import { lookOnce, watchConditions } from '../conditions/watch.ts';
import { FIRST_CONTACT } from '../consul/consul.ts';
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { RunlockError } from '../errors.ts';
import type { Waiting } from '../platform/deps.ts';
import { visible } from '../text/visible.ts';
import type { SeenKey } from '../lock/transactions.ts';
import type { Begun, Beginning } from './begin.ts';
import type { TakenBehind } from './gated.ts';
import type { RunGate } from './gate-session.ts';
import type { ExecDeps, ExecOptions } from './options.ts';
import type { WaitRecord } from './outside-record.ts';
import { declineAll, firstOver, hear } from './slots.ts';
import type { HeldSlots } from './slots.ts';

export type TakenWhen =
  | Exclude<TakenBehind, { kind: 'taken' }>
  /** `begun`: what the start of the command has set. */
  | { readonly kind: 'taken'; readonly slots: HeldSlots; readonly begun?: Begun }
  /** Conditions were unmet at the end of the wait; `missing` names them and what was found instead. */
  | { readonly kind: 'unmet'; readonly missing: readonly string[] };

/** Sends `start` with all slots held; unless the run may start, all are given up. */
export type StartRun = (
  slots: HeldSlots,
  conditions: readonly SeenKey[],
) => Promise<Extract<TakenWhen, { kind: 'taken' | 'lost' }> | Extract<Beginning, { kind: 'changed' }>>;

export interface Conditional {
  readonly run: string;
  readonly when: readonly Condition[];
  readonly waiting: Waiting;
  /** Shows others that the run waits outside. */
  readonly during: WaitRecord['during'];
  /** The gate that the run passed to get its slots, and must back out of if it gives them up. */
  readonly gate: RunGate | undefined;
  /** Undefined: the run needs no `start`. */
  readonly starts?: StartRun | undefined;
  /** Asks for all slots once. */
  readonly take: (waiting: Waiting) => Promise<TakenBehind>;
}

/** Pause between two tries, so that conditions that turn false with each grant do not keep the group busy. */
const AGAIN: Growth = { shortestMs: 1_000, longestMs: 30_000 };

/** While it holds slots, a run waits no longer than this for Consul. */
const ANSWER_MS = 30_000;

/**
 * Takes the slots while all conditions hold; otherwise everything is left as it was before.
 * @throws the signal's reason when it aborts; RunlockError for a fault that ends the wait for a slot, or `forbidden`.
 */
export async function takeWhen(
  deps: ExecDeps,
  { prefix, groups }: Pick<ExecOptions, 'prefix' | 'groups'>,
  conditional: Conditional,
): Promise<TakenWhen> {
  const { run, when, waiting, during, gate, starts, take } = conditional;
  const { consul, clock, random, emit } = deps;
  const names = groups.map(({ group }) => group);
  const watching = { consul, clock, prefix, groups: names };
  const who = { run, group: names.join(',') };
  for (let tries = 0; ; tries += 1) {
    const outside = await during(waiting, () => waitOutside({ ...watching, emit, who }, when, waiting));
    if (outside) return { kind: 'unmet', missing: outside };
    const taken = await take(waiting);
    if (taken.kind !== 'taken') return taken;
    const looked = await lookInside(deps, taken.slots, {
      waiting,
      look: (signal) =>
        lookOnce(watching, when, { signal, retryForMs: ANSWER_MS, electionMs: ANSWER_MS }).then((judged) => {
          refuseOwn(judged, run);
          return missingOf(judged);
        }),
      backOut: () => gate?.backOut(),
    });
    const inside = looked.kind === 'taken' && starts ? toUnmet(await starts(looked.slots, [])) : looked;
    if (inside.kind !== 'unmet') return inside;
    emit({ event: 'when-gave-way', ...who, missing: inside.missing });
    if (waiting.patience.aborted) return inside;
    await clock.sleep(growingMs(tries, AGAIN, random), { signal: waiting.either }).catch(() => {
      waiting.signal.throwIfAborted();
    });
  }
}

/** A condition that changed after the last look is looked at again, without a slot. */
const toUnmet = (started: Awaited<ReturnType<StartRun>>): TakenWhen =>
  started.kind === 'changed' ? { kind: 'unmet', missing: [`${visible(started.key)} has changed`] } : started;

/** Waits without a slot. Returns what is missing when patience ends; undefined: all conditions hold. */
async function waitOutside(
  {
    emit,
    who,
    ...watching
  }: Omit<Parameters<typeof watchConditions>[0], 'signal'> & {
    readonly emit: ExecDeps['emit'];
    readonly who: { readonly run: string; readonly group: string };
  },
  when: readonly Condition[],
  { signal, patience, either }: Waiting,
): Promise<readonly string[] | undefined> {
  const said = new Set<string>();
  try {
    await watchConditions({ ...watching, signal: either }, when, {
      since: () => undefined,
      decide: ({ judged }) => {
        if (judged.every(({ holds }) => holds)) return { done: true };
        const missing = missingOf(judged);
        // The texts contain growing ages, so compare conditions and marks to log each state only once.
        const open = judged.filter(({ holds }) => !holds);
        const key = JSON.stringify(open.map(({ condition, mark }) => [condition.text, mark]));
        if (!said.has(key)) emit({ event: 'when-waits', ...who, missing });
        said.add(key);
        return { againInMs: Infinity };
      },
    });
    return undefined;
  } catch (error) {
    if (signal.aborted || !patience.aborted || error !== patience.reason) throw error;
    // Out of patience: look once more, with the limits of a first contact.
    const missing = missingOf(await lookOnce(watching, when, { signal, ...FIRST_CONTACT }));
    return missing.length === 0 ? undefined : missing;
  }
}

/**
 * Refuses a condition that is false because this run itself has its slot: no try could succeed. @throws RunlockError
 * `usage`
 */
function refuseOwn(judged: readonly Judged[], run: string): void {
  const own = judged.find(({ holds, runs }) => !holds && runs.includes(run));
  if (!own) return;
  throw new RunlockError(
    'usage',
    `--when ${visible(own.condition.text)} never holds while this run has its slot; nothing was started; take it away, or name another group or node`,
  );
}

const missingOf = (judged: readonly Judged[]): string[] =>
  judged.flatMap(({ condition, holds, is }) => (holds ? [] : [`${visible(condition.text)}: ${is}`]));

interface Inside {
  readonly waiting: Waiting;
  readonly look: (signal: AbortSignal) => Promise<readonly string[]>;
  readonly backOut: () => Promise<void> | undefined;
}

/**
 * The last look before the command, with all slots held. If a condition is false or a lease ended, gives all up at
 * once.
 */
async function lookInside(
  deps: ExecDeps,
  slots: HeldSlots,
  { waiting: { signal }, look, backOut }: Inside,
): Promise<TakenWhen> {
  const over = new AbortController();
  for (const { lease } of slots) hear(lease.over, () => over.abort());
  const either = AbortSignal.any([signal, over.signal]);
  const giveUp = async () => {
    await backOut();
    await declineAll(deps, slots);
  };
  try {
    const missing = await look(either);
    if (missing.length === 0) return { kind: 'taken', slots };
    await giveUp();
    return { kind: 'unmet', missing };
  } catch (error) {
    const lost = firstOver(slots, { over: over.signal, signal: either });
    await giveUp();
    if (lost) return { kind: 'lost', slot: lost };
    throw error;
  }
}
