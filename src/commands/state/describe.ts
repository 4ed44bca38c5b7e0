/** What `runlock state` found or did, for people and as the shapes of `--json`. */
import { assertNever } from '../../errors.ts';
import type { RenderOptions } from '../../output/status.ts';
import { renderTable } from '../../output/table.ts';
import type { SetResult } from '../../state/change.ts';
import type { StateDocument } from '../../state/document.ts';
import type { Change, State } from '../../state/read.ts';
import { shortValue, stateText } from '../../state/words.ts';
import { formatAge, momentText } from '../../text/age.ts';
import { visible } from '../../text/visible.ts';

/** One state, as `--json` shows it; `set` false: the state does not exist, or has expired. */
export function stateReport({ path, state }: Change): object {
  return state ? { path, set: true, ...fieldsOf(state) } : { path, set: false };
}

const fieldsOf = ({ value, change, by, at, run, cause, until }: StateDocument) => ({
  value,
  change,
  by,
  at,
  ...(run !== undefined && { run }),
  ...(cause && { cause }),
  ...(until !== undefined && { until }),
});

export function setReport(result: SetResult, path: string): object {
  const was = 'before' in result ? { before: fieldsOf(result.before) } : {};
  if (result.kind === 'refused') return { kind: result.kind, path, ...was };
  return { kind: result.kind, path, ...fieldsOf(result.state), ...was };
}

export const listReport = (states: readonly State[], { prefix, below }: Where): object => ({
  prefix,
  ...(below !== '' && { below }),
  states: states.map((state) => ({ path: state.path, ...fieldsOf(state) })),
});

export const deleteReport = (path: string, before: StateDocument | undefined): object =>
  before ? { kind: 'deleted', path, before: fieldsOf(before) } : { kind: 'not-set', path };

export const pruneReport = (pruned: readonly string[]): object => ({ pruned });

interface Where {
  readonly prefix: string;
  readonly below: string;
}

/** The value: unchanged for a program, without control characters for a terminal. */
export const rawValue = (value: string, isTerminal: boolean): string =>
  `${isTerminal ? value.split('\n').map(visible).join('\n') : value}\n`;

export function describeSet(result: SetResult, path: string, now: number): string {
  switch (result.kind) {
    case 'set': {
      const was = result.before ? ` (was ${shortValue(result.before.value)})` : '';
      return `set ${path} to ${shortValue(result.state.value)}${was}${endText(result.state, now)}\n`;
    }
    case 'unchanged':
      return `${path} is already ${shortValue(result.state.value)}\n`;
    case 'extended':
      return `${path} is already ${shortValue(result.state.value)}; extended${endText(result.state, now) || ' until it is deleted'}\n`;
    case 'refused':
      return `${path} ${result.before ? `is ${stateText(result.before, now)}` : 'is not set'}; nothing was changed\n`;
    default:
      return assertNever(result);
  }
}

const endText = ({ until }: StateDocument, now: number) =>
  until === undefined ? '' : ` ${momentText(until, now)}`;

export function describeList(
  states: readonly State[],
  { prefix, below, ...options }: RenderOptions & Where,
): string {
  if (states.length === 0)
    return `no state is set ${below === '' ? `below ${prefix}/` : `at ${below} or below it`}\n`;
  const rows = states.map(({ path, value, by, at, until }) => ({
    cells: [path, shortValue(value), by, age(at, options.now), leftText(until, options.now)],
  }));
  const head = ['PATH', 'VALUE', 'SET BY', 'AGE', 'ENDS IN'];
  return `${renderTable(head, rows, { ...options, flexible: 'VALUE' }).join('\n')}\n`;
}

const age = (at: string, now: number) => formatAge(now - Date.parse(at));
const leftText = (until: string | undefined, now: number) =>
  until === undefined ? '' : formatAge(Date.parse(until) - now);

export function describeDelete(path: string, before: StateDocument | undefined, now: number): string {
  return before ? `deleted ${path} (was ${stateText(before, now)})\n` : `${path} is not set\n`;
}

export function describePrune(pruned: readonly string[]): string {
  if (pruned.length === 0) return 'nothing to delete: no state has ended\n';
  return pruned.map((path) => `deleted ${visible(path)} (ended)\n`).join('');
}

/** One line for one change. */
export function describeChange({ path, state }: Change, now: number): string {
  return state ? `${path} is ${stateText(state, now)}${endText(state, now)}\n` : `${path} is not set\n`;
}
