/** Layout of help, for terminals of any width. */
import { Help } from 'commander';
import type { HelpConfiguration, Option } from 'commander';
import { sentenceColumns } from '../platform/terminal.ts';
import { wrapUnits } from '../text/wrap.ts';
import type { Context } from './command.ts';

/** Default width if the terminal's is unknown. */
const USUAL_COLUMNS = 80;
/** Longer lines are hard to read, and shorter ones have no room for words. */
const [MOST_COLUMNS, LEAST_COLUMNS] = [120, 20];

/** For help on stdout. */
export function helpColumns({ env, stdout }: Pick<Context, 'env' | 'stdout'>): number {
  const columns = sentenceColumns({ env, columns: stdout?.columns }) ?? USUAL_COLUMNS;
  return Math.min(MOST_COLUMNS, Math.max(LEAST_COLUMNS, columns));
}

/** With less room than this beside the options, descriptions stand below them. */
const LEAST_BESIDE = 30;

const plain = new Help();

/** Replaces Commander's own layout, which leaves long lines on terminals narrower than 80 columns. */
export const helpLayout: HelpConfiguration = {
  minWidthToWrap: 1,
  formatItem(term, termWidth, description, helper) {
    const columns = helper.helpWidth ?? USUAL_COLUMNS;
    if (description === '' || columns - termWidth - 4 >= LEAST_BESIDE)
      return plain.formatItem.call(helper, term, termWidth, description, helper);
    const below = helper.boxWrap(description, columns - 6).replaceAll('\n', '\n      ');
    return `  ${term}\n      ${below}`;
  },
  // `<command> [args...]` is one unit, so that a line does not end between the two.
  styleUsage(usage) {
    const lead = 'Usage: ';
    const units = usage.split(/ (?=\[options\]|--|<|\[)/);
    const lines = wrapUnits(units, this.helpWidth, { lead, hang: lead.length, between: ' ' });
    return lines.join('\n').slice(lead.length);
  },
  // Do not print the default of a flag, which is always "not set".
  optionDescription(option: Option) {
    return option.defaultValue === false ? option.description : plain.optionDescription(option);
  },
};
