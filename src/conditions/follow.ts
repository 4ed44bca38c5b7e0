/** Follows what conditions rest on, and rings when a new look is due (docs/adr/0030, docs/adr/0032). */
import type { Consul, ReadOptions } from '../consul/consul.ts';
import { persistRefused } from '../consul/retry.ts';
import { lookPast } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import { isRunlockError } from '../errors.ts';
import { readInstances } from '../gate/read.ts';
import type { Clock } from '../platform/deps.ts';
import { stateOpenKey } from '../state/path.ts';
import { isOf, readOneKey, signatureOf } from './read.ts';
import type { Look } from './read.ts';
import { idOf } from './sources.ts';
import type { ServiceSource, Source } from './sources.ts';
import { openPlace } from './traces.ts';
import type { Watch } from './watches.ts';

/** Reads at most ten times a second, even if changes come faster. */
export const PAUSE_MS = 100;
/** Longer than PAUSE_MS, because a watch on a missing key, or on a common folder, also wakes when other keys change. */
const SHARED_PAUSE_MS = 1_000;
/** How long each of several services that share a query is asked for changes. */
const TURN_MS = 1_000;
/** Pause between looks where the token may not list a common folder, only the keys in it. */
const UNLISTED_PAUSE_MS = 5_000;

/** A source, as the last look had it, and as its own watch saw it last. */
export interface Followed {
  looked: string;
  /** undefined: nothing yet. */
  seen: string | undefined;
  /** Whether its watch was answered since the last look began. */
  isAhead: boolean;
  /** That answer, if it is a key's that was unlike the last look: a whole look, where the key is all that there is. */
  answer: Look | undefined;
}

export interface Following {
  readonly consul: Consul;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** The pause between two queries, in milliseconds. */
  readonly paceMs: number;
  /** The look that came before the first query. */
  readonly world: Look;
  readonly of: (source: Source) => Followed;
  /** Asks for a look. `isNews`: also after one that is under way. */
  readonly ring: (isNews: boolean) => void;
}

/** Never returns. @throws RunlockError `forbidden`, `incompatible`; the signal's reason. */
export async function follow(following: Following, watch: Watch): Promise<never> {
  switch (watch.kind) {
    case 'source':
      return followSource(following, watch.source);
    case 'folder':
      return followFolder(following, watch.folder);
    case 'turns':
      return followTurns(following, watch.services);
  }
}

/** Rings when it sees something else than the last look did. Whether that came and went meanwhile, a look asks (`Trace`). */
async function followSource(following: Following, source: Source): Promise<never> {
  const { consul, clock, signal, ring, paceMs } = following;
  const followed = following.of(source);
  let index = startIndex(following.world, source);
  let needless = 0;
  let opensAt = NEEDLESS;
  for (;;) {
    const before = followed.seen ?? followed.looked;
    const seen = await persistRefused(clock, signal, () =>
      lookPast((past) => readSource(consul, source, { ...past, signal }), index),
    );
    const hasMoved = index > 0 && seen.index !== index;
    ({ index } = seen);
    followed.seen = seen.signature;
    followed.isAhead = true;
    if (hasMoved && seen.signature === before) needless += 1;
    // A tree that is as it was has changed meanwhile; a key that is not there wakes for its neighbours too.
    if (seen.signature !== followed.looked || (hasMoved && source.kind === 'tree')) {
      // That a key is gone is for a look to say: Consul asked for the token's rights when the query began, not when it ended.
      followed.answer = seen.isEmpty ? undefined : seen.look;
      ring(false);
    }
    if (needless === opensAt && source.kind === 'key' && source.path !== undefined) {
      await openPlace(consul, stateOpenKey(source.key), { signal });
      // `state prune` may remove it, but it is rarely needed again.
      opensAt *= 16;
    }
    await clock.sleep(seen.isEmpty ? SHARED_PAUSE_MS : paceMs, { signal });
  }
}

/** Rings whenever something below the folder has changed: what that was, only a look tells. */
async function followFolder({ consul, clock, signal, ring }: Following, folder: string): Promise<never> {
  let index = 0;
  for (;;) {
    const seen = await persistRefused(clock, signal, () =>
      lookPast((past) => consul.indexOf(folder, { ...past, signal }), index),
    ).catch((error: unknown) => {
      // It may read its keys, or the next look says that it may not.
      if (isRunlockError(error, 'forbidden')) return undefined;
      throw error;
    });
    // The first answer may come after a change that the first look has not seen.
    if (!seen || seen.index !== index) ring(true);
    index = seen?.index ?? 0;
    await clock.sleep(seen ? SHARED_PAUSE_MS : UNLISTED_PAUSE_MS, { signal });
  }
}

async function followTurns(following: Following, services: readonly ServiceSource[]): Promise<never> {
  const { consul, clock, signal, ring } = following;
  const indexes = new Map<string, number>();
  for (;;)
    for (const source of services) {
      const followed = following.of(source);
      const id = idOf(source);
      const seen = await persistRefused(clock, signal, () =>
        lookPast((past) => readSource(consul, source, { ...past, signal }), indexes.get(id) ?? 0, TURN_MS),
      );
      indexes.set(id, seen.index);
      followed.seen = seen.signature;
      followed.isAhead = true;
      if (seen.signature !== followed.looked) ring(false);
      await clock.sleep(PAUSE_MS, { signal });
    }
}

/** An existing key wakes only for its own changes, so watch from its own index; watch all else from the start. */
function startIndex({ entries, index }: Look, source: Source): number {
  if (index !== undefined) return index;
  if (source.kind !== 'key') return 0;
  return entries.find(({ key }) => key === source.key)?.modifyIndex ?? 0;
}

/**
 * After so many needless wake-ups by neighbouring keys, a watch on a missing state creates a key beside it (`openPlace`).
 */
const NEEDLESS = 2;

interface SeenSource {
  readonly signature: string;
  readonly index: number;
  readonly isEmpty: boolean;
  /** Of a key. */
  readonly look?: Look | undefined;
}

async function readSource(consul: Consul, source: Source, options: Past & ReadOptions): Promise<SeenSource> {
  if (source.kind === 'service') {
    const { value, index } = await readInstances(consul, source.service, options);
    return { signature: JSON.stringify(value), index, isEmpty: value.length === 0 };
  }
  if (source.kind === 'tree') {
    const { key, rule } = source;
    const { entries, index } = await consul.list(key, { ...options, rule });
    return { signature: signatureOf(entries), index, isEmpty: entries.length === 0 };
  }
  const { entries, index, whole } = await readOneKey(consul, source, options);
  return { signature: signatureOf(entries), index, isEmpty: entries.length === 0, look: whole };
}

/** What a look has of a source, to compare it with what its watch saw. */
export function signatureIn({ entries, instances }: Look, source: Source): string {
  if (source.kind === 'service') return JSON.stringify(instances.get(source.service) ?? []);
  return signatureOf(entries.filter(({ key }) => isOf(source, key)));
}
