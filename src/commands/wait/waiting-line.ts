/** The live line of a waiting `exec` on a terminal: place in the queue, who holds, since when. */
import type { Consul, Entry } from '../../consul.ts';
import type { Deps } from '../../deps.ts';
import { reasonOf } from '../../errors.ts';
import { freezeKeys } from '../../lock/layout.ts';
import { renderWaiting } from '../../output/waiting.ts';
import type { GroupView, HolderView, WaitingView } from '../../output/views.ts';
import type { Terminal } from '../../platform.ts';
import { viewGroups } from '../status.ts';

export interface QueueWatch {
  /** Hears which ticket is this run's. */
  readonly joined: (session: string) => void;
  close(): Promise<void>;
}

/** Whoever gets a slot within this time never sees the line, and asks Consul nothing for it. */
const QUIET_MS = 400;
const REDRAW_MS = 1_000;
/** A watch on a key that is not there wakes for its neighbours' changes too. */
const ABOVE_MS = 3_000;

interface Watched {
  readonly prefix: string;
  readonly group: string;
  /** The groups in which the run has a slot already. */
  readonly held: readonly string[];
  readonly terminal: Terminal;
}

export function watchQueue(deps: Deps & { consul: Consul }, watched: Watched): QueueWatch {
  const closed = new AbortController();
  const { signal } = closed;
  const startedMs = deps.clock.monotonicMs();
  let session: string | undefined;
  const { prefix, group, held } = watched;
  let own: readonly Entry[] | undefined;
  const above = new Map<string, Entry>();
  let view: GroupView | undefined;

  function review(): void {
    if (!own) return;
    const entries = [...own, ...above.values()];
    view = viewGroups({ entries }, { prefix, groups: [group], now: deps.clock.now() }).groups[0];
    draw();
  }

  async function read(): Promise<void> {
    let index: number | undefined;
    for (;;) {
      const seen = await deps.consul.list(`${prefix}/${group}/`, { signal, index });
      own = seen.entries;
      review();
      index = seen.index;
      // A busy group changes many times a second; nobody reads that fast.
      await deps.clock.sleep(REDRAW_MS, { signal });
    }
  }

  /** A freeze above stops the group too. */
  async function readAbove(key: string): Promise<void> {
    let index: number | undefined;
    for (;;) {
      const seen = await deps.consul.get(key, { signal, index });
      const isNew = seen.entry?.modifyIndex !== above.get(key)?.modifyIndex;
      if (seen.entry) above.set(key, seen.entry);
      else above.delete(key);
      if (isNew) review();
      index = seen.index;
      await deps.clock.sleep(seen.entry ? REDRAW_MS : ABOVE_MS, { signal });
    }
  }

  async function tick(): Promise<void> {
    for (;;) {
      await deps.clock.sleep(REDRAW_MS, { signal });
      draw();
    }
  }

  function draw(): void {
    if (signal.aborted || !view) return;
    const waitedMs = deps.clock.monotonicMs() - startedMs;
    watched.terminal.draw(
      renderWaiting(
        { ...toWaiting(view, { session, waitedMs, nowMs: deps.clock.now() }), held },
        watched.terminal.columns(),
      ),
    );
  }

  const running = deps.clock
    .sleep(QUIET_MS, { signal })
    .then(() => Promise.all([read(), tick(), ...freezeKeys(prefix, group).slice(1).map(readAbove)]))
    .catch((error: unknown) => {
      // The line is a comfort: the wait itself says what is wrong.
      if (!signal.aborted) deps.log('debug', `no live line: ${reasonOf(error)}`, { event: 'no-live-line' });
    });
  return {
    joined: (ticket) => {
      session = ticket;
    },
    close: async () => {
      closed.abort();
      await running;
      watched.terminal.draw('');
    },
  };
}

function toWaiting(
  { group, slots, queue, frozen }: GroupView,
  { session, waitedMs, nowMs }: { session: string | undefined; waitedMs: number; nowMs: number },
): WaitingView {
  const place = queue.find((waiter) => waiter.session === session)?.place;
  const holders = slots.flatMap(({ node, state, command, since }): HolderView[] => {
    if (state === 'free' || state === 'locked' || state === 'unreadable' || node === undefined) return [];
    return [{ node, state, command: command ?? '', ageMs: nowMs - Date.parse(since ?? '') }];
  });
  if (!frozen) return { group, waitedMs, place, holders };
  const { at, by, reason, until } = frozen;
  const left = until === undefined ? {} : { leftMs: Date.parse(until) - nowMs };
  return { group, waitedMs, place, holders, frozen: { at, by, reason, ...left } };
}
