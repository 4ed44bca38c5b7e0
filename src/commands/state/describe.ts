/** What `runlock state` found or did, for people and as the shapes of `--json`. */
import { assertNever } from '../../errors.ts';
import type { RenderOptions } from '../../output/status.ts';
import { renderTable } from '../../output/table.ts';
import type { DeleteResult, SetResult } from '../../state/change.ts';
import type { StateDocument } from '../../state/document.ts';
import type { Pruned } from '../../state/prune.ts';
import type { Change, Fault, listStates } from '../../state/read.ts';
import { shortValue, shorten, stateText } from '../../state/words.ts';
import { formatAge, momentText } from '../../text/age.ts';
import { visible } from '../../text/visible.ts';

/** One state, as `--json` shows it; `set` false: the state does not exist, or has expired. */
export function stateReport(change: Change): object {
  const { path } = change;
  if ('fault' in change) return { path, set: true, unreadable: change.fault.message };
  return change.state ? { path, set: true, ...fieldsOf(change.state) } : { path, set: false };
}

const fieldsOf = ({ value, change, by, at, run, cause, depth, until, ...ofRun }: StateDocument) => ({
  value,
  change,
  by,
  at,
  ...(run !== undefined && { run }),
  ...(cause && { cause }),
  ...(depth !== undefined && { depth }),
  ...(until !== undefined && { until }),
  ...(ofRun.published && { published: true }),
  ...(ofRun.while && { while: ofRun.while }),
});

export function setReport(result: SetResult, path: string): object {
  const was = 'before' in result ? { before: fieldsOf(result.before) } : {};
  if (result.kind === 'refused') return { kind: result.kind, path, ...was };
  return { kind: result.kind, path, ...fieldsOf(result.state), ...was };
}

export const listReport = ({ states, unreadable }: Listed, { prefix, below }: Where): object => ({
  prefix,
  ...(below !== '' && { below }),
  states: states.map((state) => ({ path: state.path, ...fieldsOf(state) })),
  ...unreadableReport(unreadable),
});

type Listed = Awaited<ReturnType<typeof listStates>>;

const unreadableReport = (faults: readonly Fault[]) =>
  faults.length > 0 ? { unreadable: faults.map(({ path, fault }) => ({ path, why: fault.message })) } : {};

export const deleteReport = (path: string, result: DeleteResult): object => ({
  kind: result.kind,
  path,
  ...(result.kind === 'deleted' && result.before && { before: fieldsOf(result.before) }),
});

export const pruneReport = ({ states, open, unreadable }: Pruned): object => ({
  pruned: states,
  open,
  ...unreadableReport(unreadable),
});

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
      return `${path} is already ${shortValue(result.state.value)}; now lasts${endText(result.state, now) || ' until it is deleted'}\n`;
    case 'refused':
      return `${path} ${result.before ? `is ${stateText(result.before, now)}` : 'is not set'}; nothing was changed\n`;
    default:
      return assertNever(result);
  }
}

const endText = ({ until }: StateDocument, now: number) =>
  until === undefined ? '' : ` ${momentText(until, now)}`;

export function describeList(
  { states, unreadable }: Listed,
  { prefix, below, ...options }: RenderOptions & Where,
): string {
  if (states.length === 0) {
    const none = unreadable.length === 0 ? 'no state is set' : 'no state can be read';
    return `${none} ${below === '' ? `below ${prefix}/` : `at ${below} or below it`}\n`;
  }
  const rows = states.map(({ path, value, by, at, until }) => ({
    cells: [path, shortValue(value), shorten(by), age(at, options.now), leftText(until, options.now)],
  }));
  const head = ['PATH', 'VALUE', 'SET BY', 'AGE', 'ENDS IN'];
  return `${renderTable(head, rows, { ...options, flexible: 'VALUE' }).join('\n')}\n`;
}

const age = (at: string, now: number) => formatAge(now - Date.parse(at));
const leftText = (until: string | undefined, now: number) =>
  until === undefined ? '' : formatAge(Date.parse(until) - now);

export function describeDelete(path: string, result: DeleteResult, now: number): string {
  if (result.kind === 'not-set') return `${path} is not set\n`;
  const was = result.before ? `was ${stateText(result.before, now)}` : 'it could not be read';
  return `deleted ${path} (${was})\n`;
}

export function describePrune({ states, open }: Pruned): string {
  if (states.length + open.length === 0) return 'nothing to delete: no state has ended\n';
  const lines = [
    ...states.map((path) => `deleted ${path} (ended)\n`),
    ...open.map((path) => `deleted the .open key of ${path} (the state is not set)\n`),
  ];
  return lines.join('');
}

/** One line for one change. */
export function describeChange(change: Change, now: number): string {
  const { path } = change;
  if ('fault' in change) return `${path} can't be read: ${visible(change.fault.message)}\n`;
  const { state } = change;
  return state ? `${path} is ${stateText(state, now)}${endText(state, now)}\n` : `${path} is not set\n`;
}
