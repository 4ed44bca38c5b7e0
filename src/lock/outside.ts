/**
 * The record of a run that waits without a slot, for its gate or its conditions (docs/protocol.md, "Waiting outside").
 * Only people read it: no run decides anything by it, and a run that can't write it waits all the same.
 */
import type { Consul, Entry } from '../consul/consul.ts';
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { leaveSession, openShortSession } from '../consul/session.ts';
import { send } from '../consul/txn.ts';
import { reasonOf } from '../errors.ts';
import type { Deps } from '../platform/deps.ts';
import { isName } from '../text/words.ts';
import { groupKeys } from './keys.ts';
import { decode, encode, isText, isTime, optional } from './records.ts';
import type { Shape, Stored } from './records.ts';

/** `.outside/<node>`: for what a run waits without a slot. Texts are as they were given: print them with `visible`. */
export interface OutsideRecord {
  readonly run: string;
  /** When the run began to wait, ISO 8601 in UTC. */
  readonly since: string;
  /** All groups of the run; each of them has this record. */
  readonly groups: readonly string[];
  /** The conditions of `--when`, as they were written. */
  readonly when: readonly string[];
  /** Absent: the run has no gate. */
  readonly gate?: OutsideGate;
  /** The run that has the node's turn on its host. Absent: the run does not wait for it. */
  readonly turn?: OutsideTurn;
  /** The paths of the states that the run sets if it succeeds. */
  readonly publish: readonly string[];
  /** The paths of the states that are there while it runs. */
  readonly during: readonly string[];
  /** Base name only. */
  readonly command: string;
  /** How often the run has given all of its slots up again. Absent: never. */
  readonly tries?: number;
}

export interface OutsideTurn {
  readonly pid: number;
  /** Base name only. */
  readonly command: string;
  readonly groups: readonly string[];
}

/** What the gate asks. */
export interface OutsideGate {
  readonly services: readonly string[];
  readonly maxOffline: number | { readonly percent: number };
  readonly minHealthy?: number;
  /** A service without instances is open. */
  readonly allowUnknown?: true;
}

interface What {
  readonly prefix: string;
  /** Undefined: the node that the local agent is on. */
  readonly node?: string | undefined;
  /** The session's; the record of a killed run is there for up to twice as long. */
  readonly ttlMs: number;
  readonly record: OutsideRecord;
}

interface Effects {
  readonly consul: Consul;
  readonly deps: Deps;
}

export interface Shown {
  /** Removes the record. Never throws; takes a few seconds at most. */
  end(): Promise<void>;
}

/** Shorter waits are not recorded. */
const QUIET_MS = 400;

/** The pause before the next try, where the record could not be written, or another run of the node has one. */
const AGAIN: Growth = { shortestMs: 2_000, longestMs: 60_000 };

/** How long the end of the session is asked for. */
const LEAVE_MS = 2_000;

/** Records the wait, in the background, until `end` is called. */
export function showOutside(effects: Effects, what: What): Shown {
  const ended = new AbortController();
  const done = keepShown(effects, what, ended.signal);
  return {
    end: () => {
      ended.abort();
      return done;
    },
  };
}

async function keepShown(effects: Effects, what: What, ended: AbortSignal): Promise<void> {
  const { clock, random, emit } = effects.deps;
  try {
    await clock.sleep(QUIET_MS, { signal: ended });
    for (let failures = 0; ; failures += 1) {
      const fault = await showOnce(effects, what, ended).catch(reasonOf);
      ended.throwIfAborted();
      if (fault === GONE) failures = 0;
      emit({ event: 'wait-unrecorded', run: what.record.run, detail: { fault } });
      await clock.sleep(growingMs(failures, AGAIN, random), { signal: ended });
    }
  } catch {
    // The wait is over.
  }
}

const GONE = 'its session is gone';

/** Returns why the record is not there, or no longer. */
async function showOnce(effects: Effects, { prefix, node, ttlMs, record }: What, ended: AbortSignal) {
  const asked = { name: 'runlock waits', ttlMs, signal: ended, retryForMs: 0 };
  const session = await openShortSession(effects, asked);
  try {
    const name = node ?? session.node;
    if (!isName(name)) return `'${name}' can't be the name of a node`;
    for (const group of record.groups) {
      const keys = groupKeys(prefix, group);
      const step = {
        verb: 'lock',
        key: keys.outside(name),
        value: encode(record),
        session: session.id,
      } as const;
      const steps = [{ operation: step, means: 'another run' } as const];
      const result = await send(effects.consul, steps, { signal: ended, rule: keys.rule });
      if (result.kind === 'refused') return `${result.key}: ${result.why}`;
    }
    await lostOr(session.lost, ended);
    return GONE;
  } finally {
    // Deletes the record with the session.
    await leaveSession(effects, session, { retryForMs: LEAVE_MS });
  }
}

function lostOr(lost: AbortSignal, ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const either = AbortSignal.any([lost, ended]);
    if (either.aborted) resolve();
    else either.addEventListener('abort', () => resolve(), { once: true });
  });
}

const MOST_TEXTS = 128;
const LONGEST_TEXT = 8_192;

const short = (value: unknown) => isText(value) && (value as string).length <= LONGEST_TEXT;
const texts = (value: unknown) =>
  Array.isArray(value) && value.length <= MOST_TEXTS && value.every((each) => short(each));
const count = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
const bound = (value: unknown) => {
  if (typeof value === 'number') return count(value);
  const { percent } = (value ?? {}) as { readonly percent?: unknown };
  return typeof percent === 'number' && percent >= 0 && percent <= 100;
};
const group = (value: unknown) => short(value) && (value as string).split('/').every(isName);

const turnShape: Shape<OutsideTurn> = {
  pid: count,
  command: short,
  groups: (value) => texts(value) && (value as unknown[]).every(group),
};

const gateShape: Shape<OutsideGate> = {
  services: texts,
  maxOffline: bound,
  minHealthy: optional(count),
  allowUnknown: optional((value) => value === true),
};

function hasShape<T>(shape: Shape<T>): (value: unknown) => boolean {
  return (value) =>
    typeof value === 'object' &&
    value !== null &&
    Object.entries<(value: unknown) => boolean>(shape).every(([field, check]) =>
      check((value as Record<string, unknown>)[field]),
    );
}

const shape: Shape<OutsideRecord> = {
  run: short,
  since: isTime,
  groups: (value) => texts(value) && (value as unknown[]).every(group),
  when: texts,
  gate: optional(hasShape(gateShape)),
  turn: optional(hasShape(turnShape)),
  publish: texts,
  during: texts,
  command: short,
  tries: optional(count),
};

/**
 * Reads a record of a wait. Any node of the group may have written anything there.
 * @throws RunlockError `incompatible`: it is none, is too large, or a newer runlock wrote it.
 */
export function decodeOutside(stored: Stored): OutsideRecord {
  const { run, since, groups, when, gate, turn, publish, during, command, tries } = decode(
    'record of a waiting run',
    shape,
    stored,
  );
  const record = { run, since, groups, when, publish, during, command };
  return {
    ...record,
    ...(gate && { gate: pickGate(gate) }),
    ...(turn && { turn: { pid: turn.pid, command: turn.command, groups: turn.groups } }),
    ...(tries !== undefined && { tries }),
  };
}

function pickGate({ services, maxOffline, minHealthy, allowUnknown }: OutsideGate): OutsideGate {
  return {
    services,
    maxOffline,
    ...(minHealthy !== undefined && { minHealthy }),
    ...(allowUnknown && { allowUnknown }),
  };
}

/** Whether the run that wrote the record still waits: the record goes with its session. */
export const isWaiting = ({ session }: Entry): boolean => session !== undefined;
