/** The report as Markdown: one table a section, each figure beside its ratio. */
import type { Machine } from './machine.ts';
import type { Measured, Row } from './report.ts';

export interface Report {
  readonly at: Date;
  readonly machine: Machine;
  /** By program. */
  readonly versions: Readonly<Record<string, string>>;
  readonly parts: readonly Measured[];
}

export function tables(parts: readonly Measured[]): string {
  return parts.map(toPart).join('\n');
}

/** The page in docs/. */
export function page(report: Report, picture: string): string {
  const head = `# Benchmarks

\`npm run bench\` writes this page. It measures runlock, the real \`consul lock\` and the real \`flock\` in turns, in one run on
one machine. Figures are medians unless the table says otherwise. Machines differ, so look at the ratios.

${environment(report)}
![Hand-over and requests](${picture})
`;
  return `${head}\n${tables(report.parts)}`;
}

export function environment({ at, machine, versions }: Report): string {
  const { processor, cores, memoryGb, kernel, system, load } = machine;
  const words = Object.entries(versions).map(([name, version]) => `${name}: ${version}`);
  return `- ${at.toISOString().slice(0, 10)}, ${processor}, ${cores} cores, ${memoryGb} GB of memory
- ${system}, ${kernel}, load ${load} before it began
- ${words.join('; ')}
`;
}

function toPart({ rows, how }: Measured): string {
  const sections = [...new Set(rows.map(({ section }) => section))];
  const texts = sections.map((title, i) => {
    const own = rows.filter(({ section }) => section === title);
    return [`## ${title}\n`, ...(how !== undefined && i === 0 ? [`${how}\n`] : []), toTable(own)].join('\n');
  });
  return texts.join('\n');
}

function toTable(rows: readonly Row[]): string {
  const names = [...new Set(rows.flatMap(({ others }) => Object.keys(others)))];
  const hasReach = rows.some(({ reach }) => reach);
  const head = ['', 'runlock', ...names.flatMap((name) => [name, `runlock / ${name}`])];
  const lines = [
    [...head, ...(hasReach ? ['to reach'] : [])],
    [...head.map((_, i) => (i === 0 ? '---' : '---:')), ...(hasReach ? ['---'] : [])],
    ...rows.map((row) => [...cells(row, names), ...(hasReach ? [reached(row)] : [])]),
  ];
  const notes = rows.flatMap(({ what, note }) => (note === undefined ? [] : [`\n${what}: ${note}\n`]));
  return `${lines.map((line) => `| ${line.join(' | ')} |`).join('\n')}\n${notes.join('')}`;
}

function cells({ what, unit, runlock, others }: Row, names: readonly string[]): string[] {
  const beside = names.flatMap((name) => {
    const other = others[name];
    return other === undefined ? ['', ''] : [`${figure(other)} ${unit}`, ratio(runlock, other)];
  });
  return [what, `${figure(runlock)} ${unit}`, ...beside];
}

function reached({ reach }: Row): string {
  return reach ? `${reach.text}: ${reach.met ? 'reached' : '**not reached**'}` : '';
}

/** Three digits that count, no exponent. */
export function figure(value: number): string {
  if (Number.isInteger(value) || Math.abs(value) >= 100) return Math.round(value).toLocaleString('en-GB');
  return Number(value.toPrecision(3)).toString();
}

function ratio(one: number, other: number): string {
  if (other === 0) return one === 0 ? '1' : '';
  const quotient = one / other;
  return `${quotient >= 100 ? Math.round(quotient) : Number(quotient.toPrecision(3))}`;
}
