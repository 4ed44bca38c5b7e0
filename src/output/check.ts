/** The output line of a monitoring plugin. */
import { visible } from '../text/visible.ts';

/** The result of `commands/status/check.ts`. */
interface CheckView {
  readonly state: string;
  readonly text: readonly string[];
  readonly figures: readonly {
    readonly label: string;
    readonly value: number;
    readonly unit?: string;
    readonly critical?: number;
  }[];
}

/** Show at most this many findings, because monitoring systems and pagers cut long lines. */
const SHOWN = 3;

/** `RUNLOCK <state> - <text> | <perfdata>`, with a line break at its end. */
export function renderCheck({ state, text, figures }: CheckView): string {
  const shown = text.slice(0, SHOWN);
  if (text.length > SHOWN) shown.push(`${text.length - SHOWN} more`);
  // Text after the first | would be read as perfdata.
  const said = visible(shown.join('; ')).replaceAll('|', '/');
  const data = figures.map(
    ({ label, value, unit = '', critical = '' }) => `${label}=${value}${unit};;${critical};0`,
  );
  return `RUNLOCK ${state} - ${said}${data.length > 0 ? ` | ${data.join(' ')}` : ''}\n`;
}
