/** What a task's file says of starts by itself: conditions whose change asks for a run, and how often. Pure. */
import { RunlockError, assertNever, isRunlockError } from '../../errors.ts';
import { parseCondition } from '../../conditions/parse.ts';
import type { Condition } from '../../conditions/parse.ts';
import { DURATIONS, LONGEST_MS, durationMs } from '../../text/duration.ts';
import { textsOf } from './texts.ts';

export interface Trigger {
  /** Any of them asks for a run; none: only `maxAgeMs` does. */
  readonly on: readonly Condition[];
  /** How long all must stay as they are before the run. */
  readonly debounceMs: number;
  /** Between the starts of two runs that were asked for. */
  readonly minIntervalMs: number;
  /** A run is asked for when the last good one is older than this; undefined: age asks for none. */
  readonly maxAgeMs?: number;
  /** Whether a condition that holds at the first look ever asks for a run. */
  readonly onFirst: 'run' | 'skip';
  /** The most starts at once, and in an hour. */
  readonly perHour: number;
}

export const TRIGGER_KEYS = [
  'on',
  'debounce',
  'min_interval',
  'max_age',
  'on_first',
  'triggers_per_hour',
] as const;
export type TriggerKey = (typeof TRIGGER_KEYS)[number];

/** As far as the file has been read. */
export type TriggerDraft = Partial<Trigger>;

const PER_HOUR = 6;
const MOST_PER_HOUR = 3_600;

/** One key of the file. @throws RunlockError `config` */
export function readTrigger(key: TriggerKey, below: readonly string[], value: unknown): TriggerDraft {
  if (key === 'on') return { on: textsOf('on', below, value).map(toCondition) };
  const plain = below.length === 0 ? value : undefined;
  switch (key) {
    case 'debounce':
      return { debounceMs: toDuration(key, plain) };
    case 'min_interval':
      return { minIntervalMs: toDuration(key, plain) };
    case 'max_age': {
      const maxAgeMs = toDuration(key, plain);
      if (maxAgeMs === 0) throw wrong('max_age: must be greater than 0');
      return { maxAgeMs };
    }
    case 'on_first':
      if (plain !== 'run' && plain !== 'skip') throw wrong('on_first: write "run" or "skip"');
      return { onFirst: plain };
    case 'triggers_per_hour':
      if (typeof plain !== 'number' || !Number.isInteger(plain) || plain < 1 || plain > MOST_PER_HOUR)
        throw wrong(`triggers_per_hour: write a whole number from 1 to ${MOST_PER_HOUR}`);
      return { perHour: plain };
  }
}

function toCondition(text: string): Condition {
  try {
    return parseCondition(text);
  } catch (error) {
    if (!isRunlockError(error, 'usage')) throw error;
    throw wrong(`on: '${text}': ${error.message}`);
  }
}

function toDuration(key: TriggerKey, value: unknown): number {
  const ms = typeof value === 'string' ? durationMs(value) : undefined;
  if (ms === undefined) throw wrong(`${key}: not a duration; ${DURATIONS}, in quotes`);
  if (ms > LONGEST_MS) throw wrong(`${key}: longer than a year; 366d is the most`);
  return ms;
}

/**
 * Undefined: nothing but people and requests starts the task.
 * @throws RunlockError `config`: a setting without anything that it is for.
 */
export function toTrigger(draft: TriggerDraft): Trigger | undefined {
  const { on = [], maxAgeMs } = draft;
  if (on.length === 0 && maxAgeMs === undefined) {
    if (Object.keys(draft).some((key) => key !== 'on'))
      throw wrong('debounce, min_interval, on_first and triggers_per_hour are for a task with on = […]');
    return undefined;
  }
  return { debounceMs: 0, minIntervalMs: 0, onFirst: 'run', perHour: PER_HOUR, ...draft, on };
}

/**
 * What is wrong if each run of the task would change a condition that starts it; undefined: none does.
 * @param groups those in which the task runs.
 */
export function ownOutcome({ on }: Trigger, groups: readonly string[]): string | undefined {
  for (const { text, ...condition } of on) {
    switch (condition.kind) {
      case 'good':
      case 'active':
      case 'idle':
      case 'blocked':
        if (condition.group === undefined)
          return `on: '${text}' names no group, which means the group of this task, so each run would start the next; name another group, as in ${text}@prod/db`;
        if (groups.includes(condition.group))
          return `on: '${text}' is about runs of ${condition.group}, in which this task runs itself, so each run would start the next; name another group, or a state that this task does not publish`;
        break;
      case 'state':
      case 'healthy':
      case 'frozen':
      case 'agent':
        break;
      default:
        assertNever(condition);
    }
  }
  return undefined;
}

const wrong = (message: string) => new RunlockError('config', message);
