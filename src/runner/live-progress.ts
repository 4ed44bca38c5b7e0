/**
 * What a waiting run sees of its group while it waits: the live line of a terminal, and for -v a line for each change of who
 * holds. It reads the group's slots alone, and its place once (docs/protocol.md, promise 7).
 */
import type { Consul, Entry } from '../consul/consul.ts';
import { watchUntil } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import type { Emit } from '../events/events.ts';
import type { Deps } from '../platform/deps.ts';
import { reasonOf } from '../errors.ts';
import { groupKeys } from '../lock/keys.ts';
import { decodeTicket } from '../lock/records.ts';
import { renderWaiting } from '../output/waiting.ts';
import type { FreezeView, WaitingView } from '../view/report.ts';
import type { Terminal } from '../platform/terminal.ts';
import { viewGroups } from '../view/groups.ts';
import { changesOf, observeSlots, toHolders } from '../view/holders.ts';
import type { SeenSlot } from '../view/holders.ts';

/** What a waiting run shows of its group: hears the steps of its way to the slot. */
export interface LiveLine {
  readonly hear: Emit;
  close(): Promise<void>;
}

/** Starts one for the wait for one slot. */
export type OpenLiveLine = (deps: Deps & { readonly consul: Consul }, watched: Watched) => LiveLine;

/** Whoever gets a slot within this time never sees the line, and asks Consul nothing for it. */
const QUIET_MS = 400;
const REDRAW_MS = 1_000;
/** A watch on a key that is not there wakes for its neighbours' changes too. */
const FREEZE_PAUSE_MS = 10_000;

/** A ticket before this run's. */
interface Ahead {
  readonly key: string;
  readonly run: string;
}

interface Watched {
  readonly prefix: string;
  readonly group: string;
  /** The groups in which the run has a slot already. */
  readonly held: readonly string[];
}

/** `terminal`: where the line goes; without one it says alone who has the slots (-v). */
export const liveLineOn =
  (terminal: Terminal | undefined): OpenLiveLine =>
  (deps, watched) =>
    openLiveLine(deps, watched, terminal);

function openLiveLine(
  deps: Parameters<OpenLiveLine>[0],
  { prefix, group, held }: Watched,
  terminal: Terminal | undefined,
): LiveLine {
  const closed = new AbortController();
  const { signal } = closed;
  const { clock, consul } = deps;
  const startedMs = clock.monotonicMs();
  const keys = groupKeys(prefix, group);
  const limits = { signal, rule: keys.rule };
  let ticket: { readonly session: string; readonly behind: boolean } | undefined;
  /** The runs before this one, in their order; undefined: nobody has looked. */
  let ahead: readonly Ahead[] | undefined;
  let slots: SeenSlot[] | undefined;
  let own: readonly Entry[] = [];
  const freezes = new Map<string, Entry>();
  let frozen: FreezeView | undefined;

  function review(): void {
    const entries = [...own, ...freezes.values()];
    const view = viewGroups({ entries }, { prefix, groups: [group], now: clock.now() }).groups[0];
    frozen = view?.frozen;
    const seen = observeSlots(slots ?? [], view?.slots ?? [], clock.monotonicMs());
    if (slots) sayChanges(slots, seen);
    slots = seen;
    passBy();
    draw();
  }

  function sayChanges(before: readonly SeenSlot[], after: readonly SeenSlot[]): void {
    for (const { slot, text, ...who } of changesOf(before, after))
      deps.emit({ event: 'holder', group, slot, ...who, detail: { text } });
  }

  /** They are granted in their order: whoever has a slot, and all before it, is no longer in the queue. */
  function passBy(): void {
    const runs = new Set((slots ?? []).map((slot) => slot.run));
    const granted = ahead?.findLastIndex(({ run }) => runs.has(run)) ?? -1;
    ahead = ahead?.slice(granted + 1);
  }

  async function followSlots(): Promise<void> {
    const read = (past: Past) => consul.list(keys.slotPrefix, { ...limits, ...past });
    await watchUntil(read, async ({ entries }) => {
      own = entries;
      review();
      // A busy group changes many times a second; nobody reads that fast.
      await clock.sleep(REDRAW_MS, { signal });
    });
  }

  /** Of the group, or above. */
  async function followFreeze(key: string): Promise<void> {
    const read = (past: Past) => consul.get(key, { ...limits, ...past });
    await watchUntil(read, async ({ entry }) => {
      const isNew = entry?.modifyIndex !== freezes.get(key)?.modifyIndex;
      if (entry) freezes.set(key, entry);
      else freezes.delete(key);
      if (isNew && slots) review();
      await clock.sleep(entry ? REDRAW_MS : FREEZE_PAUSE_MS, { signal });
    });
  }

  /** The one read that is the longer the more wait; once for each ticket. */
  async function findPlace(session: string): Promise<void> {
    const { entries } = await consul.list(keys.queuePrefix, limits);
    const order = entries
      .filter((entry) => entry.session !== undefined)
      .sort((a, b) => a.createIndex - b.createIndex);
    const place = order.findIndex(({ key }) => key === keys.queue(session));
    if (place === -1 || ticket?.session !== session) return;
    ahead = order.slice(0, place).map((entry) => ({ key: entry.key, run: runOf(entry) }));
    passBy();
    draw();
  }

  function lookForPlace(): void {
    if (!terminal || !isUp || !ticket) return;
    if (ticket.behind) findPlace(ticket.session).catch(giveUp);
    else ahead = [];
  }

  async function tick(): Promise<void> {
    for (;;) {
      await clock.sleep(REDRAW_MS, { signal });
      draw();
    }
  }

  function draw(): void {
    if (signal.aborted || !slots || !terminal) return;
    const now = { nowMs: clock.now(), monotonicMs: clock.monotonicMs() };
    const view: WaitingView = {
      group,
      held,
      waitedMs: now.monotonicMs - startedMs,
      holders: toHolders(slots, now),
      ...(ahead && { place: ahead.length + 1 }),
      ...(frozen && { frozen: frozenNow(frozen, now.nowMs) }),
    };
    terminal.draw(renderWaiting(view, terminal.columns()));
  }

  function giveUp(error: unknown): void {
    // The line is a comfort: the wait itself says what is wrong.
    if (!signal.aborted) deps.emit({ event: 'no-live-line', detail: { fault: reasonOf(error) } });
  }

  let isUp = false;
  const start = () => {
    isUp = true;
    lookForPlace();
    return Promise.all([followSlots(), ...(terminal ? [tick(), ...keys.freezes.map(followFreeze)] : [])]);
  };
  const running = clock.sleep(QUIET_MS, { signal }).then(start).catch(giveUp);
  return {
    hear: (event) => {
      if (event.event === 'queued') {
        ticket = event;
        ahead = undefined;
        lookForPlace();
      } else if (event.event === 'moved-up') {
        const { tickets } = event;
        ahead = ahead?.filter(({ key }) => tickets.includes(key));
      } else if (event.event === 'first') ahead = [];
    },
    close: async () => {
      closed.abort();
      await running;
      terminal?.draw('');
    },
  };
}

/** A ticket that can't be read keeps its place. */
function runOf(entry: Entry): string {
  try {
    return decodeTicket(entry).run;
  } catch {
    return '';
  }
}

function frozenNow({ at, by, reason, until }: FreezeView, nowMs: number): WaitingView['frozen'] {
  return { at, by, reason, ...(until !== undefined && { leftMs: Date.parse(until) - nowMs }) };
}
