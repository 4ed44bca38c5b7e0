/** The live line of a waiting run. */
import { cut, formatAge, visible } from '../output.ts';
import type { HolderView, WaitingView } from './views.ts';

/** The single line that a terminal shows while `exec` waits, one column short of the width so that it never wraps. */
export function renderWaiting(view: WaitingView, columns: number | undefined): string {
  const [holder, ...others] = view.holders ?? [];
  const parts = [`waiting ${formatAge(view.waitedMs)} for ${view.group}`];
  if (view.place !== undefined) parts.push(`place ${view.place}`);
  if (view.frozen) parts.push(frozenText(view.group, view.frozen));
  if (holder) parts.push(holderText(holder) + (others.length > 0 ? ` (and ${others.length} more)` : ''));
  // Last: where the line is cut, it is of the least use.
  if (view.held && view.held.length > 0) parts.push(`has ${view.held.join(', ')}`);
  return cut(visible(parts.join(' · ')), columns === undefined ? undefined : Math.max(1, columns - 1));
}

function frozenText(group: string, frozen: NonNullable<WaitingView['frozen']>): string {
  const { at = group, by, reason, leftMs } = frozen;
  const what = at === group ? '' : `${at === '' ? 'everything' : at} `;
  const left = leftMs === undefined ? '' : ` for another ${formatAge(leftMs)}`;
  return `${what}frozen by ${by}${left}: ${reason}`;
}

function holderText({ node, state, command, ageMs }: HolderView): string {
  if (state === 'running') return `${node} runs ${command} since ${formatAge(ageMs)}`;
  return `${node} ${state} since ${formatAge(ageMs)} (${command})`;
}
