/** Tables as text. */
import { cut, paint, widthOf } from '../text/style.ts';
import type { Style } from '../text/style.ts';
import { visible } from '../text/visible.ts';
import { wrapUnits } from '../text/wrap.ts';

export interface Row {
  readonly cells: readonly string[];
  readonly style?: Style | undefined;
}

export interface TableOptions {
  readonly color: boolean;
  /** Width of the terminal; undefined: unlimited. */
  readonly columns?: number | undefined;
  /** Head of the column that may be cut, such as COMMAND, whose beginning is enough. */
  readonly flexible?: string;
}

/** A column is never cut below this width. */
const LEAST_WIDTH = 8;
const INDENT = '  ';
const BETWEEN = '  ';

/**
 * Aligned columns below a head. If they don't fit the terminal, each row becomes a list of its cells with their heads, so
 * that no name is cut.
 */
export function renderTable(head: readonly string[], rows: readonly Row[], options: TableOptions): string[] {
  const { color, columns = Infinity, flexible = '' } = options;
  const safe = rows.map(({ cells, style }) => ({ cells: cells.map(visible), style }));
  const table: readonly Row[] = [{ cells: head, style: 'dim' }, ...safe];
  const widths = head.map((_, i) => Math.max(...table.map(({ cells }) => widthOf(cells[i] ?? ''))));
  const tooWide = widest(table, widths) - columns;
  const at = head.indexOf(flexible);
  const smaller = Math.max(LEAST_WIDTH, (widths[at] ?? 0) - Math.max(0, tooWide));
  const fitting = widths.map((width, i) => (i === at ? Math.min(width, smaller) : width));
  if (widest(table, fitting) > columns) return safe.flatMap((row) => renderList(head, row, options));
  return table.map(({ cells, style }) => paint(renderRow(cells, fitting), style, color));
}

const widest = (rows: readonly Row[], widths: readonly number[]) =>
  Math.max(...rows.map(({ cells }) => widthOf(renderRow(cells, widths))));

function renderRow(cells: readonly string[], widths: readonly number[]): string {
  const padded = cells.map((cell, i) => {
    const text = cut(cell, widths[i]);
    return text + ' '.repeat(Math.max(0, (widths[i] ?? 0) - widthOf(text)));
  });
  return `${INDENT}${padded.join(BETWEEN).trimEnd()}`;
}

function renderList(head: readonly string[], { cells, style }: Row, options: TableOptions): string[] {
  const units = cells.flatMap((cell, i) => (cell === '' ? [] : [`${(head[i] ?? '').toLowerCase()} ${cell}`]));
  const lines = wrapUnits(units, options.columns, { lead: INDENT, hang: 6 });
  return lines.map((line) => paint(line, style, options.color));
}
