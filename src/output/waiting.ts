/** The live line of a waiting run. */
import { cut, widthOf } from '../text/style.ts';
import { formatAge } from '../text/age.ts';
import { stateText } from '../text/ended.ts';
import { visible } from '../text/visible.ts';
import type { HolderView, WaitingView } from '../view/report.ts';

/** The line that a terminal shows while `exec` waits, one column narrower than the terminal so that it never wraps. */
export function renderWaiting(view: WaitingView, columns: number | undefined): string {
  const width = columns === undefined ? undefined : Math.max(1, columns - 1);
  const full = lineOf(view, 'full');
  if (width === undefined || widthOf(full) <= width) return full;
  return cut(lineOf(view, 'short'), width);
}

function lineOf(view: WaitingView, form: 'full' | 'short'): string {
  if (view.turn) {
    const { node, command, groups, pid } = view.turn;
    const other = `${command} in ${groups.join(', ')} (pid ${pid})`;
    return visible(`waiting ${formatAge(view.waitedMs)} for another run of ${node} on this host · ${other}`);
  }
  const [holder, ...others] = view.holders ?? [];
  const parts = [`waiting ${formatAge(view.waitedMs)} for ${view.group}`];
  const place = view.place === undefined ? [] : [`place ${view.place}`];
  const more = others.length > 0 ? ` (and ${others.length} more)` : '';
  // A long line is cut at its end, so the least useful part comes last.
  if (holder?.gone && form === 'short') parts.push(holderText(holder, form) + more, ...place);
  else parts.push(...place);
  if (view.frozen) parts.push(frozenText(view.group, view.frozen));
  if (holder && !(holder.gone && form === 'short')) parts.push(holderText(holder, form) + more);
  if (view.held && view.held.length > 0) parts.push(`holds ${view.held.join(', ')}`);
  return visible(parts.join(' · '));
}

function frozenText(group: string, frozen: NonNullable<WaitingView['frozen']>): string {
  const { at = group, by, reason, leftMs } = frozen;
  const what = at === group ? '' : `${at === '' ? 'all groups' : at} `;
  const left = leftMs === undefined ? '' : ` for another ${formatAge(leftMs)}`;
  return `${what}frozen by ${by}${left}: ${reason}`;
}

function holderText({ node, state, command, ageMs, gone }: HolderView, form: 'full' | 'short'): string {
  if (gone) {
    const { forMs, leftMs, then } = gone;
    const when = leftMs > 0 ? `in ${formatAge(leftMs)}` : 'any moment now';
    const lost = `${node} lost its session ${formatAge(forMs)} ago`;
    if (form === 'short') return `${lost}; ${then === 'abandoned' ? then : 'taken over'} ${when}`;
    return `${lost}; ${then === 'abandoned' ? 'counts as abandoned' : 'may be taken over'} ${when} (${command})`;
  }
  return `${node} ${stateText({ state, command, forMs: ageMs })}`;
}
