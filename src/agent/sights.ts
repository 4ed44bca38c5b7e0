/** Follows the conditions of all triggers and hooks of a node together: what several need is watched once. */
import { isRunlockError } from '../errors.ts';
import type { Judged } from '../conditions/judge.ts';
import { nameOf, sightOf } from '../conditions/marks.ts';
import type { Sight } from '../conditions/marks.ts';
import type { Condition } from '../conditions/parse.ts';
import { readEnds } from '../conditions/sights.ts';
import type { Sighting } from '../conditions/sights.ts';
import { sourcesOf } from '../conditions/sources.ts';
import { watchConditions } from '../conditions/watch.ts';
import type { Clock } from '../platform/deps.ts';

/** By the names of the conditions; one that is not known yet is missing. */
export type Sights = ReadonlyMap<string, Sight>;

/** Between two looks, in milliseconds: a trigger is for what lasts, so a busy group costs one look a second. */
export const PACE_MS = 1_000;
/** An agent that is restarted, or was cut off, is not gone. */
export const AGENT_GONE_MS = 60_000;

interface Hearing {
  readonly heard: (sights: Sights) => void;
  readonly paceMs?: number | undefined;
  readonly signal: AbortSignal;
}

/** Never returns. @param heard has all sights so far. @throws RunlockError `forbidden`, `usage`, …; the signal's reason. */
export async function followSights(
  sighting: Sighting,
  conditions: readonly Condition[],
  { heard, paceMs = PACE_MS, signal }: Hearing,
): Promise<never> {
  const sights = new Map<string, Sight>();
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  const tell = (found: readonly Sight[]) => {
    for (const sight of found) sights.set(sight.name, sight);
    heard(new Map(sights));
  };
  try {
    const all = batches(conditions, sighting.prefix).map((batch) =>
      followBatch(sighting, batch, { tell, paceMs, signal: either }),
    );
    return await Promise.race(all);
  } finally {
    over.abort();
  }
}

/** As few as one transaction each can read. */
export function batches(conditions: readonly Condition[], prefix: string): readonly (readonly Condition[])[] {
  const done: (readonly Condition[])[] = [];
  let open: readonly Condition[] = [];
  for (const condition of new Map(conditions.map((each) => [each.text, each])).values()) {
    const wider = [...open, condition];
    if (fits(wider, prefix)) open = wider;
    else {
      done.push(open);
      open = [condition];
    }
  }
  return open.length > 0 ? [...done, open] : done;
}

function fits(conditions: readonly Condition[], prefix: string): boolean {
  try {
    sourcesOf(conditions, { prefix, groups: [] });
    return true;
  } catch (error) {
    if (isRunlockError(error, 'usage')) return false;
    throw error;
  }
}

interface Telling {
  readonly tell: (sights: readonly Sight[]) => void;
  readonly paceMs: number;
  readonly signal: AbortSignal;
}

async function followBatch(
  sighting: Sighting,
  batch: readonly Condition[],
  { tell, paceMs, signal }: Telling,
): Promise<never> {
  const { consul, clock, prefix } = sighting;
  const patient = agentsGoneLate(clock);
  let latest: readonly Judged[] | undefined;
  let telling: Promise<void> | undefined;
  // Where a group is idle, one more read is needed, and only the latest look is worth it.
  const tellAll = async () => {
    while (latest) {
      const judged = latest;
      latest = undefined;
      const ends = await readEnds({ consul, prefix }, judged, { signal, isWhole: false });
      tell(judged.map((one) => sightOf(one, ends)));
    }
    telling = undefined;
  };
  let fail: (error: unknown) => void = () => undefined;
  const failed = new Promise<never>((_, reject) => (fail = reject));
  const watching = watchConditions<never>({ consul, clock, prefix, groups: [], signal }, batch, {
    since: () => undefined,
    paceMs,
    decide: ({ judged }) => {
      const { sure, dueInMs } = patient(judged);
      latest = sure;
      telling ??= tellAll().catch(fail);
      return { againInMs: dueInMs };
    },
  });
  return Promise.race([watching, failed]);
}

/** Takes an agent for gone only after a while. Until then it counts as there, or, if it was never seen, as nothing. */
export function agentsGoneLate({ monotonicMs }: Pick<Clock, 'monotonicMs'>) {
  const missing = new Map<string, number>();
  const seen = new Set<string>();
  return (judged: readonly Judged[]): { readonly sure: readonly Judged[]; readonly dueInMs: number } => {
    let dueInMs = Infinity;
    const nowMs = monotonicMs();
    const sure = judged.flatMap((one): readonly Judged[] => {
      const { condition, holds } = one;
      if (condition.kind !== 'agent') return [one];
      const name = nameOf(condition);
      if (holds !== condition.not) {
        missing.delete(name);
        seen.add(name);
        return [one];
      }
      const sinceMs = missing.get(name) ?? nowMs;
      missing.set(name, sinceMs);
      const leftMs = sinceMs + AGENT_GONE_MS - nowMs;
      if (leftMs <= 0) return [one];
      dueInMs = Math.min(dueInMs, leftMs);
      return seen.has(name) ? [{ ...one, holds: !holds }] : [];
    });
    return { sure, dueInMs };
  };
}
