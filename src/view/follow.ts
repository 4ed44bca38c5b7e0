/** Follows what `status` shows by blocking queries, which return only when something has changed. */
import { FIRST_CONTACT, isTransient } from '../consul/consul.ts';
import type { Consul, ReadOptions } from '../consul/consul.ts';
import { watchUntil } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import type { Clock } from '../platform/deps.ts';
import { followWaits } from './follow-waits.ts';
import { viewGroups } from './groups.ts';
import { mayHideCircles } from './read.ts';
import type { StatusReport } from './report.ts';
import { groupsBeside } from './runs.ts';
import { findHidden, joinFound, readSource, sourcesBeside, sourcesOf } from './sources.ts';
import type { Found, Scope, Source } from './sources.ts';
import { wholePrefix } from './waits.ts';

/** The latest data as a report for the given time, because ages grow without a change. @param now wall-clock ms */
export type Followed = (now: number) => StatusReport;

export interface FollowOptions extends Scope {
  readonly signal: AbortSignal;
  /** Called with the data: first when all has been read once, then after each change. */
  readonly changed: (seen: Followed) => void;
}

/** An agent that hangs is noticed within 32 s. */
const WATCH = { waitMs: 25_000, timeoutMs: 5_000 };

/** A storm of changes is read at most ten times a second, a listing of ten thousand keys once a second. */
const PAUSE_MS = 100;
const PAUSE_PER_ENTRY_MS = 0.1;

/** A watch on a missing freeze key also wakes for neighbouring keys (measured), so it pauses longer. */
const FREEZE_PAUSE_MS = 1_000;

/**
 * Runs until `signal` aborts. Survives transient faults, such as an election or a restart of the agent.
 * @throws RunlockError if the first contact fails, or Consul denies access.
 */
export async function followGroups(
  { consul, clock }: { consul: Consul; clock: Clock },
  { prefix, groups, signal, changed }: FollowOptions,
): Promise<void> {
  const sources = sourcesOf({ prefix, groups });
  const latest = new Map<Source, Found>();
  const known: string[] = [];
  let fail: (error: unknown) => void = () => undefined;
  const failed = new Promise<never>((_, reject) => {
    fail = reject;
  });
  /** Followed only once runs of the named groups may be waiting for each other: any run may end that. */
  const whole: Source = { kind: 'tree', key: wholePrefix(prefix).key };
  const hasAll = () => groups.length === 0 || latest.has(whole);
  const seenNow = () => {
    const all = latest.get(whole);
    return joinFound(all ? [all] : [...latest.values()]);
  };
  const tell = () => {
    if (latest.size < sources.length) return;
    const found = { ...seenNow(), waits: waits.facts() };
    changed((now) => {
      if (!hasAll() && mayHideCircles(found, { prefix, groups, now })) followWhole();
      return viewGroups(found, { prefix, groups, now });
    });
  };
  let asked: Promise<void> | undefined;
  const followWhole = () => {
    asked ??= findHidden(consul, { prefix, groups: [] }, signal).then(
      (hidden) => {
        if (hidden === undefined) follow(whole).catch(fail);
      },
      (error: unknown) => {
        if (!isTransient(error)) fail(error);
        // The next change asks again.
        asked = undefined;
      },
    );
  };
  const waits = followWaits(
    { consul, clock },
    { prefix, hasAll, signal, changed: tell, fail: (error) => fail(error) },
  );
  /** Follows other groups that runs of the named groups are in or wait for. */
  const followBeside = () => {
    const entries = [...latest.values()].flatMap((found) => found.entries);
    const beside = hasAll() ? [] : groupsBeside({ prefix, groups }, entries, known);
    if (beside.length === 0) return;
    known.push(...beside);
    const have = new Set(sources.map(({ key }) => key));
    const more = sourcesBeside({ prefix, groups: beside }).filter(({ key }) => !have.has(key));
    sources.push(...more);
    for (const source of more) follow(source).catch(fail);
  };
  const follow = async (source: Source) => {
    const where = { prefix, source };
    const read = async (past: Past) => {
      const contact = latest.has(source) ? {} : FIRST_CONTACT;
      const found = await ask(consul, where, { ...WATCH, ...contact, ...past, signal });
      return { found, index: found?.index ?? 0 };
    };
    await watchUntil(read, async ({ found }) => {
      // Nothing was read. When Consul is back, it answers at once even without a change.
      if (!found) return undefined;
      const before = latest.get(source);
      latest.set(source, found);
      followBeside();
      if (!(before && isSame(before, found))) {
        waits.see(seenNow().entries);
        tell();
      }
      if (found.index === undefined) return true;
      await clock.sleep(pauseMs(source, found), { signal });
      return undefined;
    });
  };
  await Promise.race([failed, Promise.all([...sources].map(follow))]);
}

/**
 * Undefined: the blocking query failed with a transient fault. A query without an index is retried for ever.
 */
async function ask(
  consul: Consul,
  where: { prefix: string; source: Source },
  limits: Omit<ReadOptions, 'rule'>,
): Promise<Awaited<ReturnType<typeof readSource>> | undefined> {
  if (limits.index === undefined) return readSource(consul, where, limits);
  try {
    return await readSource(consul, where, { ...limits, retryForMs: 0, electionMs: 0 });
  } catch (error) {
    if (isTransient(error)) return undefined;
    throw error;
  }
}

function isSame(before: Found, after: Found): boolean {
  if (before.entries.length !== after.entries.length) return false;
  return before.entries.every(({ key, modifyIndex, session, value }, i) => {
    const now = after.entries[i];
    return (
      now?.key === key && now.modifyIndex === modifyIndex && now.session === session && now.value === value
    );
  });
}

function pauseMs({ kind }: Source, { entries }: Found): number {
  return kind === 'freeze' ? FREEZE_PAUSE_MS : Math.max(PAUSE_MS, entries.length * PAUSE_PER_ENTRY_MS);
}
