/**
 * `.triggers/<node>/<task>`: what the last good run of a trigger had seen, and how its starts went (docs/adr/0046). It is in
 * Consul alone, so that a restored snapshot brings back conditions and cursor of one moment. Pure.
 */
import { isRunlockError } from '../errors.ts';
import { decode, encode, isNatural, isText, isTime, optional } from '../lock/records.ts';
import type { Shape, Stored } from '../lock/records.ts';

/** What is known of one condition. */
export interface Known {
  /** The mark that a run has seen. Absent: the condition was false when it was last looked at. */
  readonly mark?: string;
  /** Of `good:`, instead: runs that began up to this index are known. */
  readonly point?: number;
  /** A run that saw it true is under way, or has failed. */
  readonly running?: true;
  /** How often the agent saw the condition turn false. */
  readonly flips?: number;
}

export interface Cursor {
  /** When it was first written. */
  readonly since: string;
  /** By the names of the conditions (`nameOf`). */
  readonly marks: Readonly<Record<string, Known>>;
  /** The run that a change or its age has started, until its end is known. */
  readonly run?: string;
  readonly startedAt?: string;
  /** When the last good run ended. */
  readonly goodAt?: string;
  /** In a row. */
  readonly failures?: number;
  readonly backOffUntil?: string;
  /** Starts that are left, as of `filledAt`. */
  readonly left?: number;
  readonly filledAt?: string;
  /** No start was left; until all are again, nothing is started. */
  readonly trippedAt?: string;
  /** With it: when all will be left. */
  readonly tripEndsAt?: string;
  /** Since when its starts have come to nothing, again and again: no run has begun, or a hook's post was not taken. */
  readonly stalledAt?: string;
  /** What the last of them said, for people. */
  readonly stalledWhy?: string;
  /** The last change that started nothing, because its own run had led to it. */
  readonly refused?: Refused;
}

export interface Refused {
  readonly why: 'loop' | 'deep';
  readonly cause: readonly string[];
  readonly depth: number;
  readonly at: string;
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const isKnown = (value: unknown): boolean => {
  if (!isRecord(value)) return false;
  const { mark, point, running, flips } = value;
  if (running !== undefined && running !== true) return false;
  return optional(isText)(mark) && optional(isNatural)(point) && optional(isNatural)(flips);
};

const isRefused = (value: unknown): boolean => {
  if (!isRecord(value)) return false;
  const { why, cause, depth, at } = value;
  const links = Array.isArray(cause) && cause.every(isText);
  return (why === 'loop' || why === 'deep') && links && isNatural(depth) && isTime(at);
};

const shape: Shape<Cursor> = {
  since: isTime,
  marks: (value) => isRecord(value) && Object.values(value).every(isKnown),
  run: optional(isText),
  startedAt: optional(isTime),
  goodAt: optional(isTime),
  failures: optional(isNatural),
  backOffUntil: optional(isTime),
  left: optional((value) => typeof value === 'number' && value >= 0 && Number.isFinite(value)),
  filledAt: optional(isTime),
  trippedAt: optional(isTime),
  tripEndsAt: optional(isTime),
  stalledAt: optional(isTime),
  stalledWhy: optional(isText),
  refused: optional(isRefused),
};

export const encodeCursor = (cursor: Cursor): string => encode(cursor);

export type ReadCursor =
  /** The node has never looked at this trigger. */
  | { readonly kind: 'none' }
  | { readonly kind: 'cursor'; readonly cursor: Cursor }
  /** Not a cursor. What it stood for is lost, so the trigger starts over as if all were new. */
  | { readonly kind: 'garbage' }
  /** Of a newer runlock, to be left alone. */
  | { readonly kind: 'newer'; readonly why: string };

export function readCursor(stored: Stored | undefined): ReadCursor {
  if (!stored) return { kind: 'none' };
  try {
    const read: Cursor & { v?: unknown } = { ...decode('trigger', shape, stored) };
    delete read.v;
    return { kind: 'cursor', cursor: read };
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    return isNewer(stored.value) ? { kind: 'newer', why: error.message } : { kind: 'garbage' };
  }
}

/** `decode` has found it to be an object with a `v`, if it is one of a newer version. */
function isNewer(value: string): boolean {
  try {
    const { v } = JSON.parse(value) as { v?: unknown };
    return typeof v === 'number' && v > 1;
  } catch {
    return false;
  }
}

export function knownOf({ marks }: Pick<Cursor, 'marks'>, name: string): Known | undefined {
  return Object.hasOwn(marks, name) ? marks[name] : undefined;
}
