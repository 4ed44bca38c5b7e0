/** `runlock config`: the report → stdout. */
import type { Asked } from '../../cli/command.ts';
import type { Output } from '../../platform/terminal.ts';
import { cut, paint, widthOf } from '../../text/style.ts';
import { visible } from '../../text/visible.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { openLog } from '../with-consul.ts';
import type { ConfigReport } from './report.ts';

export type ConfigAsked = Asked<{ readonly json: boolean; readonly report: ConfigReport }>;

export async function run({ common, options }: ConfigAsked, platform: Platform): Promise<number> {
  // What is wrong with the environment is said as by every command.
  openLog(platform, common);
  const { json, report } = options;
  // A pipe gets whole values, whatever COLUMNS says.
  const fit = (output: Output) => (platform.stdout.isTTY ? output : { ...output, columns: undefined });
  await print(platform, { json, data: report, text: (output) => renderConfig(report, fit(output)) });
  return 0;
}

function renderConfig(report: ConfigReport, { color, columns }: Output): string {
  const { path, found } = report.file;
  const where = report.groups.length > 0 ? ` in ${report.groups.join(' and ')}` : '';
  const title = `runlock ${report.command}${where}, ${found ? `from ${path}` : `without a file (no ${path})`}`;
  const rows = report.options.map((each) => [
    each.group === undefined ? each.option : `${each.option} (${each.group})`,
    each.value ?? `(${each.means ?? 'none'})`,
    sourceOf(each, path),
  ]);
  const table = [['OPTION', 'VALUE', 'FROM'], ...rows].map((row) => row.map(visible));
  const widths = [0, 1].map((i) => Math.max(...table.map((row) => widthOf(row[i] ?? ''))));
  const lines = table.map((row, index) => {
    const cells = row.map((cell, i) => cell + ' '.repeat(Math.max(0, (widths[i] ?? 0) - widthOf(cell))));
    const set = index > 0 && report.options[index - 1]?.from !== 'default';
    return paint(cut(`  ${cells.join('  ').trimEnd()}`, columns), set ? undefined : 'dim', color);
  });
  return `${[paint(visible(title), 'bold', color), ...lines].join('\n')}\n`;
}

function sourceOf({ from, variable, line, section }: ConfigReport['options'][number], path: string): string {
  if (from === 'environment') return variable ?? from;
  if (from !== 'file') return from;
  return `${path}:${line ?? 0}${section === undefined ? '' : ` [groups."${section}"]`}`;
}
