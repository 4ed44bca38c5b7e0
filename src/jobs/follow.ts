/** Follows a job: reads all of it anew whenever something of it has changed, and does what whoever looks does. */
import { RunlockError } from '../errors.ts';
import { watchUntil } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import { createAnnouncer } from './announce.ts';
import { jobText } from './keys.ts';
import { createLooker } from './look.ts';
import type { Looker } from './look.ts';
import { jobReadRule, placeOf } from './read.ts';
import { viewJob } from './view.ts';
import type { JobView } from './view.ts';

/** Reads at most ten times a second; a job of a thousand targets once a second. */
const PAUSE_MS = 100;
const PAUSE_PER_TARGET_MS = 1;
/** What targets wait for in a queue changes no key of the job: a look each five seconds, of ten thousand each fifty. */
const WAITS_MS = 5_000;
const WAITS_PER_TARGET_MS = 5;

export interface Follower extends Looker {
  /** Somebody wants to see the output of its runs as they go on. */
  readonly live?: boolean;
}

/**
 * Runs until `seen` returns a value. One blocking query for the whole job, which carries names alone. Survives a restart of
 * the agent.
 * @throws RunlockError `config`: there is no such job (any more); `forbidden`, naming the rule; what `signal` aborts with.
 */
export async function followJob<R>(
  looker: Follower,
  home: string,
  seen: (view: JobView) => R | undefined | Promise<R | undefined>,
): Promise<R> {
  const { consul, deps, prefix, ref, signal } = looker;
  const { keys } = placeOf(prefix, home, ref);
  const rule = jobReadRule(prefix, home);
  const look = createLooker(looker);
  const announcer = looker.live ? createAnnouncer(looker) : undefined;
  let dueInMs = Infinity;
  // The index comes first: what changes between the two reads is seen by both.
  const read = async (past: Past) => {
    const { index } = await consul.indexOf(keys.prefix, { ...past, signal, rule });
    return { index, view: await viewJob(looker, { signal }) };
  };
  const followed = watchUntil(
    read,
    async ({ view }) => {
      if (!view)
        throw new RunlockError('config', `there is no job ${jobText(ref)} any more: somebody removed it`);
      const result = await seen(view);
      if (result !== undefined) return result;
      const mayWait = view.targets.some(({ state }) => state === 'accepted' || state === 'waiting');
      const waitsMs = Math.max(WAITS_MS, view.targets.length * WAITS_PER_TARGET_MS);
      dueInMs = Math.min(await look(view), mayWait ? waitsMs : Infinity);
      await announcer?.look(view);
      await deps.clock.sleep(Math.max(PAUSE_MS, view.targets.length * PAUSE_PER_TARGET_MS), { signal });
      return undefined;
    },
    { waitMs: () => dueInMs },
  );
  return followed.finally(() => announcer?.leave());
}
