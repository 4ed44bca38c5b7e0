/**
 * The turn of a node on this host: its runs go one at a time, whatever their groups, first come, first served
 * (docs/adr/0041). Each run that wants the turn has a ticket with a number; the lowest one of a living run has the turn.
 */
import type { Emit } from '../events/events.ts';
import { isNobody, isSameBoot } from '../platform/deps.ts';
import type { Host } from '../platform/deps.ts';
import { reasonOf } from '../errors.ts';
import { isDescendantOf } from './process-tree.ts';
import type { TicketPlace, TurnFiles } from './turn-files.ts';
import { decide } from './turn-tickets.ts';
import type { Ticket } from './turn-tickets.ts';

/** Holds the turn, or is the next to get it. */
export type TurnHolder = Omit<Ticket, 'behind'>;

export type TurnLook =
  /** The run may go on: the turn is its own, or that of a run around it. */
  | { readonly kind: 'mine' }
  | { readonly kind: 'held'; readonly by: TurnHolder }
  /** The run that holds it is dead, but processes of it are alive. */
  | {
      readonly kind: 'left-over';
      readonly by: TurnHolder;
      readonly pids: readonly number[];
      readonly cgroup?: string;
    }
  /** There is no folder for tickets that can be trusted, so nobody takes turns. */
  | { readonly kind: 'nowhere'; readonly why: string };

export interface Turn {
  /** Joins the line for the node's turn, unless this run is in it, and says how it stands. Never throws. */
  look(node: string): TurnLook;
  /** Where the tickets are: what to watch for changes. Undefined: nowhere. */
  folder(): string | undefined;
  /**
   * Gives the turn, or the place in the line, back while this run waits in a queue (docs/adr/0050). Runs that have a group in
   * common with it still go after it, until it has the turn again or has left the queue. May be repeated. Never throws.
   */
  lend(): void;
  /** The run has left the queue. */
  outOfQueue(): void;
  /** Gives all back. May be repeated. Never throws. */
  leave(): void;
}

export interface TurnAsks {
  readonly ticket: Omit<Ticket, 'behind'>;
  readonly emit: Emit;
  readonly monotonicMs: () => number;
}

export interface TurnOptions extends TurnAsks {
  /** The tickets of a node. @throws if there is no place for them. */
  readonly filesOf: (node: string) => TurnFiles;
  readonly host: Pick<Host, 'startTime' | 'hidden' | 'survivors'>;
  /** The run that this process says it is inside of. */
  readonly inside?: string | undefined;
}

/** A ticket is touched this often, so that those in other pid namespaces see that its run is alive. */
const TOUCH_MS = 10_000;
/** A run in another pid namespace that has not touched its ticket for this long counts as dead. */
export const STALE_MS = 60_000;
/** Other runs join at the same moment; more tries than this would be a defect. */
const MOST_TRIES = 1_000;

/** Node's message names the whole ticket as well, which is the target of a link. */
function shortReason(error: unknown): string {
  const { code, path, dest } = error as NodeJS.ErrnoException & { readonly dest?: string };
  return code === undefined ? reasonOf(error) : `${code}: ${dest ?? path ?? ''}`;
}

export function openTurn(options: TurnOptions): Turn {
  const { run, groups } = options.ticket;
  let place: { readonly files: TurnFiles; readonly number: number } | undefined;
  /** Where it stands that this run waits in a queue. */
  let lentIn: TurnFiles | undefined;
  let seenIn: TurnFiles | undefined;
  let isMine = false;
  let touching: NodeJS.Timeout | undefined;
  const life = lifeOf(options);

  function look(node: string): TurnLook {
    if (isMine) return { kind: 'mine' };
    try {
      if (place && !(place.files.isTrusted() && isOwn(place))) leavePlace();
      if (place) return judge(place.files, place.files.numbers());
      const files = (seenIn = options.filesOf(node));
      // Seen before it joins: a ticket that comes and goes would wake all who wait, and itself.
      const before = queuedBefore(files);
      if (before) return { kind: 'held', by: before };
      const numbers = files.numbers();
      const first = decide(numbers, life.livingIn(files));
      if (first.kind === 'held' && isAround(options, first.by)) return take(files, []);
      return judge(files, join(files, numbers));
    } catch (error) {
      leave();
      return { kind: 'nowhere', why: shortReason(error) };
    }
  }

  /** Returns the tickets that are there with the new one. @throws if the folder can't be written. */
  function join(files: TurnFiles, seen: readonly number[]): readonly number[] {
    let numbers = seen;
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      const last = numbers.at(-1);
      const number = (last ?? 0) + 1;
      const behind = last === undefined ? undefined : files.read(last)?.run;
      const isCreated = files.create(number, behind ? { ...options.ticket, behind } : options.ticket);
      numbers = files.numbers();
      // If this process was stopped meanwhile, the ticket may have been cleared with that of a dead run.
      if (!isCreated || !numbers.includes(number) || !isOwn({ files, number })) continue;
      // A run with a higher ticket that has not seen this one may have the turn already.
      const next = numbers.find((each) => each > number);
      if (next === undefined || files.read(next)?.behind === run) {
        place = { files, number };
        touching ??= setInterval(touch, TOUCH_MS).unref();
        return numbers;
      }
      files.remove(number);
      numbers = numbers.filter((each) => each !== number);
    }
    throw new Error('other runs join at the same time, again and again');
  }

  function judge(files: TurnFiles, numbers: readonly number[]): TurnLook {
    const first = decide(numbers, life.livingIn(files), place?.number);
    if (first.kind === 'held') {
      const left = life.leftOf(first.by);
      return left ? { kind: 'left-over', by: first.by, ...left } : first;
    }
    return take(files, first.dead);
  }

  /** Nobody of the line has the turn. */
  function take(files: TurnFiles, dead: readonly number[]): TurnLook {
    // It may have gone to the queue since this run joined.
    const before = queuedBefore(files);
    if (before) {
      leavePlace();
      return { kind: 'held', by: before };
    }
    isMine = true;
    // Only the run that has the turn clears what is dead, and only below its own number, which is there until its end:
    // so no number is used again while somebody is about to clear it.
    for (const number of dead) files.remove(number);
    outOfQueue();
    return { kind: 'mine' };
  }

  /** A run that waits in a queue of one of this run's groups. */
  function queuedBefore(files: TurnFiles): Ticket | undefined {
    for (const other of files.queued()) {
      if (other === run) continue;
      const ticket = life.livingIn(files)(other);
      if (ticket?.groups.some((group) => groups.includes(group))) return ticket;
      // No other run will ever have that name.
      if (!ticket) files.remove(other);
    }
    return undefined;
  }

  const isOwn = ({ files, number }: NonNullable<typeof place>) => files.read(number)?.run === run;

  function touch(): void {
    if (place) place.files.touch(place.number);
    lentIn?.touch(run);
  }

  function lend(): void {
    isMine = false;
    if (!place) return;
    try {
      // First, so that whoever sees that the turn is free sees this, too.
      place.files.create(run, options.ticket);
      lentIn = place.files;
    } catch {
      // Then a run of the same group does not wait, but is busy.
    }
    leavePlace();
  }

  function leavePlace(): void {
    if (place && isOwn(place)) place.files.remove(place.number);
    place = undefined;
  }

  function outOfQueue(): void {
    lentIn?.remove(run);
    lentIn = undefined;
  }

  function leave(): void {
    clearInterval(touching);
    touching = undefined;
    isMine = false;
    leavePlace();
    outOfQueue();
  }

  return { look, lend, outOfQueue, leave, folder: () => (place?.files ?? seenIn)?.folder };
}

function lifeOf({ ticket: { bootId }, host, emit, monotonicMs }: TurnOptions) {
  const touched = new Map<string, { readonly atMs: number; readonly sinceMs: number }>();
  const isStarted = ({ pid, startTime }: Ticket) => {
    const born = host.startTime(pid);
    return born === undefined ? host.hidden(pid) : born === startTime;
  };
  /** For a run in another namespace, whose pid means nothing here. */
  const isTouched = (run: string, atMs: number) => {
    const before = touched.get(run);
    if (before?.atMs === atMs) return monotonicMs() - before.sinceMs < STALE_MS;
    touched.set(run, { atMs, sinceMs: monotonicMs() });
    return true;
  };
  /** What a dead run has left running. */
  const leftOf = (ticket: Ticket) => {
    if (ticket.bootId !== bootId || isStarted(ticket)) return undefined;
    const found = host.survivors(ticket.run, emit);
    if (isNobody(found)) return undefined;
    const { pids, cgroup } = found;
    return { pids, ...(cgroup !== undefined && { cgroup }) };
  };
  const isAlive = (ticket: Ticket, files: TurnFiles, place: TicketPlace) => {
    if (!isSameBoot(ticket.bootId, bootId)) return false;
    if (ticket.bootId !== bootId) return isTouched(ticket.run, files.touchedMs(place));
    return isStarted(ticket) || leftOf(ticket) !== undefined;
  };
  return {
    leftOf,
    livingIn: (files: TurnFiles) => (place: TicketPlace) => {
      const ticket = files.read(place);
      return ticket && isAlive(ticket, files, place) ? ticket : undefined;
    },
  };
}

/** Whether the holder's run is one that this process is inside of: the turn is held for it, too. */
function isAround({ ticket: own, inside }: TurnOptions, { run, pid, startTime, bootId }: Ticket): boolean {
  if (bootId !== own.bootId) return run === inside;
  return isDescendantOf({ pid, startTime });
}
