/** What `doctor` found, as data and as text. */
import { paint } from '../text/style.ts';
import { visible } from '../text/visible.ts';
import type { Style } from '../text/style.ts';

/** `note`: good to know, no action needed. `warning`: will cause problems later. `problem`: runs fail, or are not safe. */
export type Level = 'ok' | 'note' | 'warning' | 'problem';

export interface Check {
  /** What was looked at; several checks can have the same name. */
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
    | 'host';
  readonly level: Level;
  readonly found: string;
  /** What to do about it. */
  readonly fix?: string;
}

/** What `doctor --json` prints. Times are ISO 8601 in UTC. */
export interface DoctorReport {
  readonly v: 1;
  readonly at: string;
  /** Consul's, as configured. */
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

/** One line a check, the verdict last. */
export function renderDoctor(report: DoctorReport, { color }: { color: boolean }): string {
  const lines = report.checks.map(
    ({ check, level, found, fix }) =>
      `${paint(level.padEnd(7), styles[level], color)}  ${check.padEnd(11)}  ${visible(found)}${fix === undefined ? '' : `${/[?!]$/.test(found) ? '' : ';'} ${visible(fix)}`}`,
  );
  return [...lines, renderVerdict(report, color), ''].join('\n');
}

function renderVerdict({ checks, verdict, groups }: DoctorReport, color: boolean): string {
  const count = (level: Level) => checks.filter((check) => check.level === level).length;
  if (verdict === 'ok')
    return paint(
      visible(`no problems for ${groups.length === 1 ? 'group' : 'groups'} ${groups.join(', ')}`),
      'green',
      color,
    );
  const parts = [plural(count('problem'), 'problem'), plural(count('warning'), 'warning')];
  return paint(parts.filter((part) => part !== '').join(', '), styles[verdict], color);
}

function plural(count: number, word: string): string {
  return count === 0 ? '' : `${count} ${word}${count === 1 ? '' : 's'}`;
}
