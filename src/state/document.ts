/** The value of a state's key: a small JSON document with a `v` field. Pure. */
import { RunlockError } from '../errors.ts';
import { CLOCK_DIFFERENCE_MS } from '../lock/decide.ts';
import { decode, encode, isNatural, isText, isTime, optional } from '../lock/records.ts';
import type { Shape, Stored } from '../lock/records.ts';
import { deleteHint, pathFault } from './path.ts';

/** Longest value in bytes of UTF-8. Limited because each watcher reads the whole value at each change. */
export const VALUE_LIMIT = 4_096;

export interface StateDocument {
  readonly value: string;
  /** Random id, new for each change, because two changes may set equal values. */
  readonly change: string;
  /** Who set it: the node of a run, else `user@host`. */
  readonly by: string;
  /** When it was set, by the writer's clock; only for people. */
  readonly at: string;
  /** The run that set it. */
  readonly run?: string;
  /** The tasks whose starts by a change led to it, each `task@node`, the first cause first (`Causes`). */
  readonly cause?: readonly string[];
  readonly depth?: number;
  /** When the state ends. Absent: it lasts until it is deleted. */
  readonly until?: string;
  /** Set by `--publish`, in the transaction that recorded the run as successful. */
  readonly published?: true;
  /** Set by `--during`: the state exists only while this claim does. */
  readonly while?: While;
}

/** A claim, by its slot and by the run with which it began (`rootOf`). */
export interface While {
  readonly group: string;
  readonly slot: number;
  readonly root: string;
}

const isWhile = (value: unknown): boolean => {
  const { group, slot, root } = (value ?? {}) as Partial<Record<keyof While, unknown>>;
  const isPath = typeof group === 'string' && pathFault(group) === undefined;
  return isPath && Number.isSafeInteger(slot) && (slot as number) >= 0 && isText(root);
};

const shape: Shape<StateDocument> = {
  value: isText,
  change: isText,
  by: isText,
  at: isTime,
  run: optional(isText),
  cause: optional((value) => Array.isArray(value) && value.every(isText)),
  depth: optional(isNatural),
  until: optional(isTime),
  published: optional((value) => value === true),
  while: optional(isWhile),
};

export const encodeState = (document: StateDocument): string => encode(document);

/** @throws RunlockError `incompatible`: written by a newer runlock, or by something else. */
export const decodeState = ({ key, value }: Stored): StateDocument =>
  decode('state', shape, { key, value, remove: `delete it with '${deleteHint(key)}' if nobody needs it` });

/**
 * How long until a state counts as absent, in milliseconds; Infinity: it does not end by itself. Hosts' clocks may
 * differ, so readers allow a little more time. `nowMs`: the earliest possible current time (`WallClock`).
 */
export function leftOfState({ until }: Pick<StateDocument, 'until'>, nowMs: number): number {
  return until === undefined ? Infinity : Date.parse(until) + CLOCK_DIFFERENCE_MS - nowMs;
}

/** @throws RunlockError `usage`: the value is too long. */
export function checkValue(value: string): string {
  const bytes = Buffer.byteLength(value);
  if (bytes <= VALUE_LIMIT) return value;
  throw new RunlockError(
    'usage',
    `this value has ${bytes.toLocaleString('en-US')} bytes; ${VALUE_LIMIT.toLocaleString('en-US')} are allowed; store the data elsewhere and publish its location`,
  );
}

export const NOT_UTF8 = 'this value is not UTF-8; publish text, such as its base64';

/** @throws RunlockError `usage`: not UTF-8, or too long. */
export function toValue(bytes: Uint8Array): string {
  try {
    return checkValue(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (error) {
    if (error instanceof RunlockError) throw error;
    throw new RunlockError('usage', NOT_UTF8);
  }
}
