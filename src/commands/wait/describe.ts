/** What `runlock wait` waits for, and how it ended: for people, and as the shape of `--json`. */
import type { Judged } from '../../conditions/judge.ts';
import { cut } from '../../text/style.ts';
import { formatAge } from '../../text/age.ts';
import { visible } from '../../text/visible.ts';
import type { Goal, WaitOptions, WaitResult } from './wait.ts';

/** What `wait --json` prints. */
export function waitReport(
  { kind, judged, atOnce, waitedMs }: WaitResult,
  { goals, any }: WaitOptions,
): object {
  return {
    met: kind === 'met',
    any,
    waitedMs: Math.round(waitedMs),
    atOnce,
    conditions: judged.map(({ holds, is }, i) => ({ ...goalReport(goals[i]), asWanted: holds, is })),
  };
}

/** `wanted`: whether the condition, as it was written, has to hold. */
const goalReport = (goal: Goal | undefined) =>
  goal && { condition: goal.condition.text, wanted: goal.option === 'until' };

/** How it ended, in one sentence. */
export function endText({ kind, judged, atOnce, waitedMs }: WaitResult, options: WaitOptions): string {
  const time = formatAge(waitedMs);
  const apart =
    '; services kept changing while they were read: perhaps not all conditions were met at one moment';
  if (kind === 'met') return `conditions met after ${time}${atOnce ? '' : apart}`;
  return `timed out after ${time}: ${missingText(judged, options)}`;
}

/** The same of a wait that a signal ended, perhaps before its first look. */
export function stopText(
  { judged, waitedMs }: { readonly judged: readonly Judged[] | undefined; readonly waitedMs: number },
  options: WaitOptions,
): string {
  const missing = judged ? missingText(judged, options) : 'Consul had not answered yet';
  return `stopped by a signal after ${formatAge(waitedMs)}: ${missing}`;
}

function missingText(judged: readonly Judged[], options: WaitOptions): string {
  const open = missing(judged, options);
  return open.length === 0 ? 'conditions met, but not for as long as --stable' : open.join('; ');
}

/** What is not as it should be, and how it is instead: `state:db/schema=42: db/schema is 41, set by db01 3m ago`. */
export function missing(judged: readonly Judged[], { goals, any }: WaitOptions): string[] {
  // With --any, one condition that holds is enough.
  if (any && judged.some(({ holds }) => holds)) return [];
  return judged.flatMap(({ holds, is }, i) => {
    const goal = goals[i];
    if (holds || !goal) return [];
    return [`${goal.option === 'while' ? 'still ' : ''}${visible(goal.condition.text)}: ${is}`];
  });
}

/** The live line of a terminal, one column short of its width so that it never wraps. */
export function liveLine(
  { judged, waitedMs }: Pick<WaitResult, 'judged' | 'waitedMs'>,
  options: WaitOptions,
  columns: number,
): string {
  const [first = 'conditions met, waiting for --stable', ...others] = missing(judged, options);
  const more = others.length > 0 ? ` (and ${others.length} more)` : '';
  const time = `waiting ${formatAge(waitedMs)} of ${formatAge(options.timeoutMs)}`;
  return cut(`${time} · ${first}${more}`, Math.max(1, columns - 1));
}
