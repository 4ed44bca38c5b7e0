/** `runlock config`: the report → stdout. */
import type { Asked } from '../../cli/command.ts';
import type { Output } from '../../platform/terminal.ts';
import { paint, widthOf } from '../../text/style.ts';
import { visible } from '../../text/visible.ts';
import { wrapLines, wrapUnits } from '../../text/wrap.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { openLog } from '../with-consul.ts';
import type { ConfigReport } from './report.ts';

export type ConfigAsked = Asked<{ readonly json: boolean; readonly report: ConfigReport }>;

export async function run({ common, options }: ConfigAsked, platform: Platform): Promise<number> {
  // Like every command, warn about wrong variables of the environment.

  openLog(platform, common);
  const { json, report } = options;
  await print(platform, {
    json,
    data: report,
    text: ({ color, sentenceColumns: columns }) => renderConfig(report, { color, columns }),
  });
  return 0;
}

function renderConfig(report: ConfigReport, { color, columns }: Pick<Output, 'color' | 'columns'>): string {
  const { path, found } = report.file;
  const where = report.groups.length > 0 ? ` in ${report.groups.join(' and ')}` : '';
  const title = `runlock ${report.command}${where}, ${found ? `from ${path}` : `without a file (no ${path})`}`;
  const values = report.options.map((each) => [
    each.group === undefined ? each.option : `${each.option} (${each.group})`,
    each.value ?? `(${each.means ?? 'none'})`,
    sourceOf(each, path),
  ]);
  const table = [['OPTION', 'VALUE', 'FROM'], ...values].map((row) => row.map(visible));
  const widths = [0, 1].map((i) => Math.max(...table.map((row) => widthOf(row[i] ?? ''))));
  const rows = table.flatMap((row, index) => {
    const cells = row.map((cell, i) => cell + ' '.repeat(Math.max(0, (widths[i] ?? 0) - widthOf(cell))));
    const set = index > 0 && report.options[index - 1]?.from !== 'default';
    const aligned = `  ${cells.join('  ').trimEnd()}`;
    // No value is cut: a row that is too wide goes on below.
    const isTooWide = widthOf(aligned) > (columns ?? Infinity);
    const lines = isTooWide ? wrapUnits(row, columns, { lead: '  ', hang: 6 }) : [aligned];
    return lines.map((line) => paint(line, set ? undefined : 'dim', color));
  });
  const head = wrapLines(visible(title), columns, { hang: 2 }).map((line) => paint(line, 'bold', color));
  return `${[...head, ...rows].join('\n')}\n`;
}

function sourceOf({ from, variable, line, section }: ConfigReport['options'][number], path: string): string {
  if (from === 'environment') return variable ?? from;
  if (from !== 'file') return from;
  return `${path}:${line ?? 0}${section === undefined ? '' : ` [groups."${section}"]`}`;
}
