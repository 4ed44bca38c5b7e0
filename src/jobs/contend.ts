/** One change of a job that others change too: read, send, and both again until it took effect or is not needed. */
import { isTransient } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import { untilDone, untilRefused } from '../consul/retry.ts';
import { isRunlockError } from '../errors.ts';
import type { RunlockError } from '../errors.ts';
import { send } from '../consul/txn.ts';
import type { RunObstacle, RunStep } from '../lock/transactions.ts';
import type { Deps } from '../platform/deps.ts';
import type { SeenJob } from './transactions.ts';

export interface Contender {
  readonly consul: Consul;
  readonly deps: Pick<Deps, 'clock' | 'random'>;
  /** Ends all tries. */
  readonly signal: AbortSignal;
  /** The rules that the change takes. */
  readonly rule: string;
  /** Longest time for one request, in milliseconds. */
  readonly timeoutMs?: number;
  /** Hears the first fault that is tried again though Consul has refused, as for a token that is not yet known everywhere. */
  readonly refused?: (fault: RunlockError) => void;
}

/** What a look says is to be done. */
export type Plan<T> =
  | { readonly kind: 'over'; readonly value: T }
  | {
      readonly kind: 'send';
      readonly steps: readonly RunStep[];
      /** What it means if it takes effect; absent: that is for the next look to say. */
      readonly value?: T;
      /** How many others may be changing the same now. */
      readonly others: number;
      /** No other try follows a refusal for this reason. */
      readonly unless?: { readonly obstacle: RunObstacle; readonly value: T };
    };

/** The first pause after a change of another's, in milliseconds; doubles up to this much for each of the others. */
const [FIRST_MS, EACH_MS] = [50, 8];

/**
 * How long to wait before another try, in milliseconds: anything up to a bound that grows with each refusal, since
 * hundreds of targets may end at once and write the same tally.
 */
export function jitterMs(refusals: number, others: number, random: () => number): number {
  return random() * Math.min(FIRST_MS * 2 ** Math.min(refusals, 30), Math.max(FIRST_MS, EACH_MS * others));
}

/** Targets that may end at any moment: of the stages that are open, those that have not ended yet. */
export function contendersOf({ spec, stage, tally }: SeenJob): number {
  const last = stage.value.kind === 'open' ? stage.value.stage : spec.value.stages.length - 1;
  return spec.value.stages
    .slice(0, last + 1)
    .reduce((sum, size, i) => sum + Math.max(0, size - (tally.value.stages[i]?.final ?? 0)), 0);
}

/**
 * Sends what `plan` says until it took effect. After a lost answer `plan` looks again, so it must know its own work.
 * @throws what `plan` throws; the last fault, or the signal's reason, when the signal aborts.
 */
export async function contend<T>(
  { consul, deps: { clock, random }, signal, rule, timeoutMs, refused }: Contender,
  plan: () => Promise<Plan<T>>,
): Promise<T> {
  let refusals = 0;
  let others = 1;
  let isRefusalTold = false;
  const tryOnce = async (): Promise<{ readonly value: T } | undefined> => {
    for (;;) {
      const now = await plan();
      if (now.kind === 'over') return now;
      ({ others } = now);
      const limits = { signal, rule, ...(timeoutMs !== undefined && { timeoutMs }) };
      const result = await send(consul, now.steps, limits);
      if (result.kind === 'refused') {
        if (now.unless && result.obstacle === now.unless.obstacle) return { value: now.unless.value };
        break;
      }
      if (now.value !== undefined) return { value: now.value };
    }
    refusals += 1;
    return undefined;
  };
  const pauseMs = () => jitterMs(refusals, others, random);
  const again = untilRefused(clock);
  const isWorth = (error: unknown) => {
    const isLost = isTransient(error);
    if (isLost) refusals += 1;
    const isAgain = again(error);
    if (isAgain && !isLost && !isRefusalTold && isRunlockError(error)) {
      isRefusalTold = true;
      refused?.(error);
    }
    return isAgain;
  };
  return (await untilDone(clock, { signal, pauseMs, isWorth }, tryOnce)).value;
}
