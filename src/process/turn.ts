/**
 * The turn of a node on this host: its runs go one at a time, whatever their groups, first come, first served
 * (docs/adr/0041). Each run that wants the turn has a ticket with a number; the lowest one of a living run has the turn.
 */
import type { Emit } from '../events/events.ts';
import { isNobody, isSameBoot } from '../platform/deps.ts';
import type { Host } from '../platform/deps.ts';
import { reasonOf } from '../errors.ts';
import { isDescendantOf } from './process-tree.ts';
import type { TurnFiles } from './turn-files.ts';
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
  /** Gives the turn, or the place in the line, back. May be repeated. Never throws. */
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
  const { run } = options.ticket;
  let place: { readonly files: TurnFiles; readonly number: number } | undefined;
  let isMine = false;
  let touching: NodeJS.Timeout | undefined;
  const life = lifeOf(options);

  function look(node: string): TurnLook {
    if (isMine) return { kind: 'mine' };
    try {
      if (place && !(place.files.isTrusted() && isOwn(place))) leave();
      if (place) return judge(place.files, place.files.numbers());
      const files = options.filesOf(node);
      const numbers = files.numbers();
      const first = decide(numbers, life.livingIn(files));
      if (first.kind === 'free' || !isAround(options, first.by)) return judge(files, join(files, numbers));
      isMine = true;
      return { kind: 'mine' };
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
        touching = setInterval(() => files.touch(number), TOUCH_MS);
        touching.unref();
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
    isMine = true;
    // Only the run that has the turn clears what is dead, and only below its own number, which is there until its end:
    // so no number is used again while somebody is about to clear it.
    for (const dead of first.dead) files.remove(dead);
    return { kind: 'mine' };
  }

  const isOwn = ({ files, number }: NonNullable<typeof place>) => files.read(number)?.run === run;

  function leave(): void {
    clearInterval(touching);
    isMine = false;
    if (place && isOwn(place)) place.files.remove(place.number);
    place = undefined;
  }

  return { look, leave, folder: () => place?.files.folder };
}

function lifeOf({ ticket: { bootId }, host, emit, monotonicMs }: TurnOptions) {
  const touched = new Map<string, { readonly atMs: number; readonly sinceMs: number }>();
  const isStarted = ({ pid, startTime }: Ticket) => {
    const born = host.startTime(pid);
    return born === undefined ? host.hidden(pid) : born === startTime;
  };
  /** For a run in another namespace, whose pid means nothing here. */
  const isTouched = ({ run }: Ticket, atMs: number) => {
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
  const isAlive = (ticket: Ticket, touchedMs: () => number) => {
    if (!isSameBoot(ticket.bootId, bootId)) return false;
    if (ticket.bootId !== bootId) return isTouched(ticket, touchedMs());
    return isStarted(ticket) || leftOf(ticket) !== undefined;
  };
  return {
    leftOf,
    livingIn: (files: TurnFiles) => (number: number) => {
      const ticket = files.read(number);
      return ticket && isAlive(ticket, () => files.touchedMs(number)) ? ticket : undefined;
    },
  };
}

/** Whether the holder's run is one that this process is inside of: the turn is held for it, too. */
function isAround({ ticket: own, inside }: TurnOptions, { run, pid, startTime, bootId }: Ticket): boolean {
  if (bootId !== own.bootId) return run === inside;
  return isDescendantOf({ pid, startTime });
}
