/** The report of `doctor`, as data and as text. */
import { paint, widthOf } from '../text/style.ts';
import { visible } from '../text/visible.ts';
import type { Style } from '../text/style.ts';
import { wrapLines } from '../text/wrap.ts';

/** `note`: good to know, no action needed. `warning`: will cause problems later. `problem`: runs fail, or are not safe. */
export type Level = 'ok' | 'note' | 'warning' | 'problem';

export interface Check {
  /** What was checked; several checks can have the same name. */
  readonly check:
    | 'address'
    | 'contact'
    | 'tls'
    | 'leader'
    | 'versions'
    | 'clock'
    | 'token'
    | 'rights'
    | 'node'
    | 'connections'
    | 'leftovers'
    | 'config'
    | 'tasks'
    | 'agent'
    | 'host';
  readonly level: Level;
  readonly found: string;
  /** What to do. */
  readonly fix?: string;
}

/** What `doctor --json` prints. Times are ISO 8601 in UTC. */
export interface DoctorReport {
  readonly v: 1;
  readonly at: string;
  /** Consul's address, as configured. */
  readonly address: string;
  readonly prefix: string;
  /** By name. */
  readonly groups: readonly string[];
  /** The worst of all checks; notes count as ok. */
  readonly verdict: 'ok' | 'warning' | 'problem';
  /** The address first. */
  readonly checks: readonly Check[];
}

const styles: Readonly<Record<Level, Style>> = {
  ok: 'green',
  note: 'cyan',
  warning: 'yellow',
  problem: 'red',
};

interface DoctorOptions {
  readonly color: boolean;
  /** Undefined: one line a check. */
  readonly columns?: number | undefined;
}

/** The checks in order, the verdict last. */
export function renderDoctor(report: DoctorReport, options: DoctorOptions): string {
  const lines = report.checks.flatMap((check) => renderCheck(check, options));
  return [...lines, ...renderVerdict(report, options), ''].join('\n');
}

/** With less room than this beside the names, the text stands below them. */
const LEAST_BESIDE = 30;

function renderCheck(
  { check, level, found, fix }: Check,
  { color, columns = Infinity }: DoctorOptions,
): string[] {
  const lead = `${paint(level.padEnd(7), styles[level], color)}  ${check.padEnd(11)}  `;
  const todo = fix === undefined ? '' : `${/[?!]$/.test(found) ? '' : ';'} ${visible(fix)}`;
  const text = `${visible(found)}${todo}`;
  const hang = widthOf(lead);
  if (columns - hang >= LEAST_BESIDE) return wrapLines(text, columns, { lead, hang });
  return [lead.trimEnd(), ...wrapLines(text, columns, { lead: '  ', hang: 2 })];
}

function renderVerdict(
  { checks, verdict, groups }: DoctorReport,
  { color, columns }: DoctorOptions,
): string[] {
  const count = (level: Level) => checks.filter((check) => check.level === level).length;
  const parts = [plural(count('problem'), 'problem'), plural(count('warning'), 'warning')];
  const text =
    verdict === 'ok'
      ? visible(`no problems for ${groups.length === 1 ? 'group' : 'groups'} ${groups.join(', ')}`)
      : parts.filter((part) => part !== '').join(', ');
  const style = verdict === 'ok' ? 'green' : styles[verdict];
  return wrapLines(text, columns, { hang: 2 }).map((line) => paint(line, style, color));
}

function plural(count: number, word: string): string {
  return count === 0 ? '' : `${count} ${word}${count === 1 ? '' : 's'}`;
}
