/** What becomes of a trigger's cursor: at a look, a start, an end (docs/adr/0046). Pure. */
import type { Sight } from '../conditions/marks.ts';
import type { Causes } from '../lock/causes.ts';
import type { Outcome } from '../lock/records.ts';
import { knownOf } from './cursor.ts';
import type { Cursor, Known } from './cursor.ts';
import { LONGEST_BACK_OFF_MS, asks, bucketOf, isAged, next } from './trigger.ts';
import type { Place, Rules } from './trigger.ts';

/** Longest text for people, in characters. */
const LONGEST_WORD = 300;
const SHORTEST_BACK_OFF_MS = 60_000;

const timeText = (ms: number) => new Date(ms).toISOString();

/** What `stalled` writes. */
const STALLED = ['stalledAt', 'stalledWhy'] as const;

type Optional = Exclude<keyof Cursor, 'since' | 'marks'>;

function without({ since, marks, ...rest }: Cursor, ...names: Optional[]): Cursor {
  const kept = Object.entries(rest).filter(([name]) => !names.includes(name as Optional));
  return { since, marks, ...Object.fromEntries(kept) };
}

/**
 * After the agent's look: a condition that turned false is news when it is true again, though its mark may be the same.
 * Undefined: there is nothing to write.
 */
export function observed(sights: readonly Sight[], place: Place): Cursor | undefined {
  const { cursor, asksAnew, isWritten } = place;
  const marks: Record<string, Known> = { ...cursor.marks };
  let isNew = !isWritten && !asksAnew;
  for (const sight of sights) {
    const known = knownOf(cursor, sight.name);
    const now = known ? turned(sight, known) : asksAnew ? undefined : atFirst(sight);
    if (!now) continue;
    marks[sight.name] = now;
    isNew = true;
  }
  return isNew ? { ...cursor, marks } : undefined;
}

const turned = ({ holds }: Sight, { mark, running, flips = 0 }: Known): Known | undefined =>
  holds || (mark === undefined && !running) ? undefined : { flips: flips + 1 };

/** What is true at the first look is as good as seen. */
const atFirst = ({ holds, mark, round }: Sight): Known =>
  round ? { point: round.high } : holds ? { mark } : {};

/** A run as it began: what it has seen, and what was known then. */
export interface Begun {
  readonly run: string;
  readonly sights: readonly Sight[];
  readonly place: Place;
}

/** The run starts its command in the transaction that writes this. */
export function started({ run, sights, place }: Begun, rules: Rules, nowMs: number): Cursor {
  const { left, isTripped } = bucketOf(place.cursor, rules, nowMs);
  // What starts by its age costs nothing: it is rare, and the rest may be wrong.
  const spends = sights.some((sight) => asks(sight, place)) && !isAged(place, rules, nowMs);
  const rest = without(place.cursor, 'refused', ...STALLED);
  const keeps = isTripped ? rest : without(rest, 'trippedAt', 'tripEndsAt');
  return {
    ...keeps,
    marks: { ...keeps.marks, ...running(sights, place) },
    run,
    startedAt: timeText(nowMs),
    left: Math.max(0, spends ? left - 1 : left),
    filledAt: timeText(nowMs),
  };
}

/** That it turns false during the run shows only if it is noted to be true. */
function running(sights: readonly Sight[], { cursor }: Place): Cursor['marks'] {
  const held = sights.filter(({ holds, round }) => holds && !round);
  return Object.fromEntries(held.map(({ name }) => [name, { ...knownOf(cursor, name), running: true }]));
}

/** After a good run. @param now the cursor as it is now; undefined: it is gone, or was overwritten. */
export function succeeded({ sights, place }: Begun, now: Cursor | undefined, nowMs: number): Cursor {
  const cursor = now ?? place.cursor;
  const marks = marksAfter(sights, place, cursor);
  return {
    ...without(cursor, 'run', 'failures', 'backOffUntil', 'refused', ...STALLED),
    marks,
    goodAt: timeText(nowMs),
  };
}

function marksAfter(sights: readonly Sight[], place: Place, cursor: Cursor): Cursor['marks'] {
  const each = sights.map((sight): readonly [string, Known | undefined] => {
    const known = knownOf(cursor, sight.name);
    const flips = known?.flips ?? 0;
    // A round that is not complete yet stays news.
    if (sight.round)
      return [
        sight.name,
        asks(sight, place) ? { point: Math.max(known?.point ?? 0, sight.round.high) } : known,
      ];
    // It turned false during the run: if it is true again, that is news, whatever its mark.
    if (flips !== (knownOf(place.cursor, sight.name)?.flips ?? 0)) return [sight.name, known];
    const rest = flips > 0 ? { flips } : {};
    return [sight.name, sight.holds ? { mark: sight.mark, ...rest } : rest];
  });
  return Object.fromEntries(each.flatMap(([name, known]) => (known ? [[name, known]] : [])));
}

/** After a run that was not good, or of which nobody knows more. What it has seen stays news. */
export function failed(cursor: Cursor, outcome: Outcome, nowMs: number): Cursor {
  const rest = without(cursor, 'run');
  // The node comes back from its reboot, and the run is asked for again.
  if (outcome === 'rebooting') return rest;
  const failures = (cursor.failures ?? 0) + 1;
  const backOffMs = Math.min(LONGEST_BACK_OFF_MS, SHORTEST_BACK_OFF_MS * 2 ** Math.min(20, failures - 1));
  return { ...rest, failures, backOffUntil: timeText(nowMs + backOffMs) };
}

/** A refused change is as good as seen, or it would be refused for ever. */
export function refused(
  { sights, place }: Omit<Begun, 'run'>,
  { why, cause, depth }: Causes & { readonly why: 'loop' | 'deep' },
  nowMs: number,
): Cursor {
  const asking = sights.filter((sight) => asks(sight, place));
  const marks = { ...place.cursor.marks, ...marksAfter(asking, place, place.cursor) };
  return {
    ...without(place.cursor, ...STALLED),
    marks,
    refused: { why, cause, depth, at: timeText(nowMs) },
  };
}

export function tripped(cursor: Cursor, rules: Rules, nowMs: number): Cursor {
  const now = { ...cursor, trippedAt: timeText(nowMs) };
  return { ...now, tripEndsAt: timeText(nowMs + bucketOf(now, rules, nowMs).dueInMs) };
}

/** Its starts come to nothing. Undefined: once that was written, what asks now would ask no more. */
export function stalled(
  { sights, place }: Omit<Begun, 'run'>,
  rules: Rules,
  { nowMs, why }: { readonly nowMs: number; readonly why: string | undefined },
): Cursor | undefined {
  const written = { ...place, asksAnew: rules.onFirst === 'run', isWritten: true };
  if (next(sights, written, rules, nowMs).kind !== 'start') return undefined;
  const stalledWhy = why === undefined ? {} : { stalledWhy: why.slice(0, LONGEST_WORD) };
  return { ...place.cursor, stalledAt: timeText(nowMs), ...stalledWhy };
}

/** Nothing asks for it any more. */
export const recovered = (cursor: Cursor): Cursor => without(cursor, ...STALLED);

/** By an operator: all that holds starts back is forgotten; what has been seen is not. */
export const reset = (cursor: Cursor): Cursor =>
  without(
    cursor,
    'failures',
    'backOffUntil',
    'left',
    'filledAt',
    'trippedAt',
    'tripEndsAt',
    ...STALLED,
    'refused',
  );
