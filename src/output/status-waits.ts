/** Runs that wait without a slot, and circles of waits, as `status` shows them. */
import { formatAge } from '../text/age.ts';
import { paint } from '../text/style.ts';
import { visible } from '../text/visible.ts';
import { wrapLines } from '../text/wrap.ts';
import { missingOf } from '../view/outside.ts';
import type { CircleView, OutsideView } from '../view/report.ts';
import { moreText } from './more.ts';

interface Options {
  readonly color: boolean;
  readonly columns?: number | undefined;
}

/** A long list is cut here; `--json` shows all of it. */
const SHOWN = 20;
/** Of one run. */
const SHOWN_REASONS = 5;

/** Each run, and below it what it is waiting for: a line each, since these are sentences. */
export function renderOutside(runs: readonly OutsideView[], { columns }: Options): string[] {
  const shown = runs.slice(0, SHOWN);
  return [...shown.flatMap((run) => renderRun(run, columns)), ...moreText(runs.length - shown.length)];
}

function renderRun(run: OutsideView, columns: number | undefined): string[] {
  const { node, waitedMs, command, tries } = run;
  const again = tries === undefined ? '' : `, gave its slots up ${tries === 1 ? 'once' : `${tries} times`}`;
  const head = `${node} has been waiting without a slot for ${formatAge(waitedMs)} (${command}${again}):`;
  const missing = missingOf(run);
  const reasons = missing.length === 0 ? [run.why] : missing.slice(0, SHOWN_REASONS);
  const more = missing.length - reasons.length;
  return [
    ...wrapLines(visible(head), columns, { lead: '  ', hang: 4 }),
    ...reasons.flatMap((reason) => wrapLines(visible(reason), columns, { lead: '    ', hang: 6 })),
    ...(more > 0 ? [`    and ${more} more`] : []),
  ];
}

/** What to do about it stands below each. */
export function renderCircles(circles: readonly CircleView[], { color, columns }: Options): string[] {
  const shown = circles.slice(0, SHOWN);
  const blocks = shown.map(({ why, next }) => {
    const title = 'circle of waits';
    const [first = '', ...rest] = wrapLines(visible(`${title}: ${why}`), columns, { hang: 2 });
    const todo = wrapLines(visible(`next: ${next}`), columns, { lead: '  ', hang: 4 });
    // Only a whole title can be coloured: colours take no room, which wrapping does not know.
    const head = first.startsWith(title) ? paint(title, 'red', color) + first.slice(title.length) : first;
    return [head, ...rest, ...todo].join('\n');
  });
  const more = circles.length - shown.length;
  return more === 0 ? blocks : [...blocks, `… and ${more.toLocaleString('en-US')} more circles of waits`];
}
