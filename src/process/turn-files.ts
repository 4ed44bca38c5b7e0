/**
 * The tickets of a node on disk (docs/adr/0041): symbolic links in a folder that only their user can write. A link and
 * its text are there at once, or not at all, and reading one follows nothing.
 */
import { lstatSync, lutimesSync, readdirSync, readlinkSync, symlinkSync, unlinkSync } from 'node:fs';
import { findFolder, isTrusted, makeFolder } from './run-folders.ts';
import { decodeTicket, encodeTicket, numberOf, runOf } from './turn-tickets.ts';
import type { Ticket } from './turn-tickets.ts';

export interface TurnFiles {
  readonly folder: string;
  /** Whether nobody else can have changed the tickets. */
  isTrusted(): boolean;
  /** Of the tickets in the line, in their order. @throws if the folder can't be read. */
  numbers(): readonly number[];
  /** The runs whose tickets say that they wait in a queue. @throws if the folder can't be read. */
  queued(): readonly string[];
  /** Undefined: it is gone, or no ticket. */
  read(place: TicketPlace): Ticket | undefined;
  /** False: there is one. @throws if the folder can't be written. */
  create(place: TicketPlace, ticket: Ticket): boolean;
  /** Milliseconds since the epoch. */
  touchedMs(place: TicketPlace): number;
  /** Never throws, as `remove`. */
  touch(place: TicketPlace): void;
  remove(place: TicketPlace): void;
}

/** A number in the line, or the id of a run that waits in a queue and has lent its turn. */
export type TicketPlace = number | string;

/** All runs of a user have to agree on the folder; a user's own one in /run is not there without a login. */
export function turnFolders(uid: number, given: string | undefined): readonly string[] {
  if (given !== undefined && given !== '') return [given];
  return uid === 0 ? ['/run/runlock', '/tmp/runlock-0'] : [`/tmp/runlock-${uid}`];
}

/** `uid`: the effective one. @throws if none of the folders can be used, and says why. */
export function openTurnFiles(folders: readonly string[], uid: number, node: string): TurnFiles {
  const folder = folderOf(folders, uid);
  const start = `turn-${node}.`;
  const startQueued = `queued-${node}.`;
  const pathOf = (place: TicketPlace) =>
    `${folder}/${typeof place === 'number' ? start : startQueued}${place}`;
  const read = (place: TicketPlace) => {
    try {
      return decodeTicket(readlinkSync(pathOf(place)));
    } catch {
      return undefined;
    }
  };
  return {
    folder,
    isTrusted: () => isTrusted(folder, uid),
    numbers: () => {
      const numbers = readdirSync(folder).flatMap((name) => numberOf(name, start) ?? []);
      return numbers.sort((a, b) => a - b);
    },
    queued: () => readdirSync(folder).flatMap((name) => runOf(name, startQueued) ?? []),
    read,
    create: (place, ticket) => {
      try {
        symlinkSync(encodeTicket(ticket), pathOf(place));
        return true;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
        throw error;
      }
    },
    touchedMs: (place) => lstatSync(pathOf(place), { throwIfNoEntry: false })?.mtimeMs ?? 0,
    touch: (place) => {
      const now = new Date();
      unlessGone(() => lutimesSync(pathOf(place), now, now));
    },
    remove: (place) => unlessGone(() => unlinkSync(pathOf(place))),
  };
}

function folderOf(folders: readonly string[], uid: number): string {
  const whys: string[] = [];
  for (const folder of folders) {
    if (isTrusted(folder, uid)) return folder;
    const made = makeFolder(folder, uid);
    // Where others have taken its name, two runs may have made one each: all use the same.
    const found = 'taken' in made ? findFolder(folder, uid) : made;
    if ('folder' in found) return found.folder;
    whys.push(found.why);
  }
  throw new Error(whys.join('; '));
}

function unlessGone(act: () => void): void {
  try {
    act();
  } catch {
    // It is gone, or the folder can't be written any more.
  }
}
