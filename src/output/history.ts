/** The result of `runlock history`, as text and as the shape of `--json`. */
import { formatAge } from '../text/age.ts';
import { paint } from '../text/style.ts';
import { visible } from '../text/visible.ts';
import type { Style } from '../text/style.ts';
import { renderProblems } from './status.ts';
import type { RenderOptions } from './status.ts';
import { renderTable } from './table.ts';
import { wrapLines } from '../text/wrap.ts';
import type { RunView } from '../view/last-run.ts';

/** What `history --json` prints. Times are ISO 8601 in UTC; names ending in Ms are milliseconds. */
export interface HistoryReport {
  readonly v: 1;
  readonly prefix: string;
  /** Includes the groups below it. Absent: all groups below the prefix. */
  readonly group?: string;
  /** When the records were read, by the reader's clock. */
  readonly at: string;
  /** The value of `--silent-for`; then `nodes` has only nodes without a successful run for this long. */
  readonly silentForMs?: number;
  /** How many records could be read. */
  readonly known: number;
  /** One entry for each group that a node ran in; those without a known successful run first, then the longest silent. */
  readonly nodes: readonly RunView[];
  /** Records that could not be read. */
  readonly problems: readonly string[];
  /** Why records of some groups may be missing: the rights that the token lacks. */
  readonly hidden?: string;
}

/** What `history --forget --json` prints. */
export interface ForgetReport {
  readonly v: 1;
  readonly prefix: string;
  readonly group?: string;
  readonly node: string;
  /** The groups in which the node's record was deleted. */
  readonly forgotten: readonly string[];
  /** Groups below the named one that still have a record of the node. */
  readonly below?: readonly string[];
  /** Why other groups may have a record too: the rights that the token lacks. */
  readonly hidden?: string;
}

interface HistoryOptions extends RenderOptions {
  /** Width at which to break the lines around the table; undefined: not at all. */
  readonly sentenceColumns?: number | undefined;
}

/** `history` for people. Ends with a line break. */
export function renderHistory(report: HistoryReport, options: HistoryOptions): string {
  const { nodes, problems } = report;
  const withGroup = nodes.some(({ group }) => group !== report.group);
  const head = ['NODE', ...(withGroup ? ['GROUP'] : []), 'SUCCEEDED', ...HEAD];
  const rows = nodes.map((run) => ({ cells: cellsOf(run, withGroup, options.now), style: styleOf(run) }));
  const wrap = (line: string) => wrapLines(line, options.sentenceColumns, { hang: 2 });
  const lines = [
    ...(rows.length === 0 ? [] : renderTable(head, rows, { ...options, flexible: 'COMMAND' })),
    ...renderProblems(problems, options),
    ...sumUp(report).flatMap(wrap),
    ...missing(report).flatMap((line) => wrap(line).map((part) => paint(part, 'yellow', options.color))),
  ];
  return `${lines.join('\n')}\n`;
}

const HEAD = ['OUTCOME', 'EXIT', 'ENDED', 'WAITED', 'RAN', 'COMMAND'];

function cellsOf(run: RunView, withGroup: boolean, now: number): string[] {
  const age = (at: string | undefined) => (at === undefined ? 'unknown' : formatAge(now - Date.parse(at)));
  return [
    run.node,
    ...(withGroup ? [run.group] : []),
    age(run.lastGoodAt),
    run.outcome,
    run.exitCode === undefined ? '' : String(run.exitCode),
    age(run.endedAt),
    formatAge(run.waitedMs),
    formatAge(run.ranMs),
    run.command,
  ];
}

function styleOf({ outcome }: RunView): Style | undefined {
  if (outcome === 'succeeded') return undefined;
  return outcome === 'rebooting' || outcome === 'interrupted' ? 'yellow' : 'red';
}

function sumUp({ prefix, group, silentForMs, known, nodes, problems }: HistoryReport): string[] {
  const where = group ?? `all groups below ${prefix}/`;
  if (known === 0 && problems.length === 0)
    return [visible(`no runs recorded in ${where} (or this token may not read them)`)];
  if (silentForMs === undefined) return [];
  const age = formatAge(silentForMs);
  // Count entries, because a node that ran in several of these groups has an entry for each.
  if (nodes.length > 0)
    return [visible(`${nodes.length} of ${known} entries in ${where} without a successful run for ${age}`)];
  return [visible(`all ${known} entries in ${where} had a successful run within ${age}`)];
}

const missing = ({ hidden }: Pick<HistoryReport, 'hidden'>): string[] =>
  hidden === undefined ? [] : [visible(`nodes may be missing here: ${hidden}`)];

/** What `--forget` did. Ends with a line break. */
export function renderForget(report: ForgetReport): string {
  const { prefix, group, node, forgotten, below = [] } = report;
  const where = group ?? `any group below ${prefix}/`;
  const done =
    forgotten.length === 0
      ? [`no run of ${node} is recorded in ${where}; nothing was deleted`]
      : forgotten.map((at) => `deleted the record of ${node} in ${visible(at)}`);
  const stays = below.map((at) => `kept the record of ${node} in ${visible(at)}`);
  return `${[...done, ...stays, ...missing(report)].join('\n')}\n`;
}
