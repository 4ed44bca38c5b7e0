/**
 * What a waiting run shows of its group: the live line of a terminal, and with -v a line for each change of holders.
 * Reads only the group's slots, and its place in the queue once (docs/protocol.md, promise 7).
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

/** Hears the events of one wait for a slot, and shows its progress. */
export interface LiveLine {
  readonly hear: Emit;
  close(): Promise<void>;
}

/** Opens the live line of one wait for one slot. */
export type OpenLiveLine = (deps: Deps & { readonly consul: Consul }, watched: Watched) => LiveLine;

/** Shorter waits show no live line and send Consul no requests for it. */
const QUIET_MS = 400;
const REDRAW_MS = 1_000;
/** Longer than REDRAW_MS, because a watch on a missing key also wakes when neighbouring keys change. */
const FREEZE_PAUSE_MS = 10_000;

/** A ticket ahead of this run's in the queue. */
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

/** `terminal`: where to draw the line; without one only changes of holders are reported (-v). */
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
  /** The runs ahead of this one, in queue order; undefined: not read yet. */
  let ahead: readonly Ahead[] | undefined;
  let slots: SeenSlot[] | undefined;
  let own: readonly Entry[] = [];
  const freezes = new Map<string, Entry>();
  let frozen: FreezeView | undefined;
  let turn: WaitingView['turn'];

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

  /** Runs get slots in queue order, so a run that has one, and all runs ahead of it, have left the queue. */
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
      // A busy group changes many times a second, faster than anyone can read.
      await clock.sleep(REDRAW_MS, { signal });
    });
  }

  /** `key`: of a freeze of the group itself, or of one above it. */
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

  /** Reads the whole queue. Done once for each ticket, because the answer grows with the number of waiting runs. */
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
      ...(turn && { turn }),
      ...(ahead && { place: ahead.length + 1 }),
      ...(frozen && { frozen: frozenNow(frozen, now.nowMs) }),
    };
    terminal.draw(renderWaiting(view, terminal.columns()));
  }

  function giveUp(error: unknown): void {
    // The live line is optional: the wait itself reports what is wrong.
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
      if (event.event === 'turn-waits') {
        turn = { node: event.node, ...event.holder };
        draw();
      } else if (event.event === 'queued') {
        turn = undefined;
        ticket = event;
        ahead = undefined;
        lookForPlace();
      } else if (event.event === 'moved-up') {
        const { tickets } = event;
        ahead = ahead?.filter(({ key }) => tickets.includes(key));
      } else if (event.event === 'first') {
        turn = undefined;
        ahead = [];
      }
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
