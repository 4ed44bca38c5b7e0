/** Options of `runlock job logs`. */
import type { Option } from 'commander';
import { onLineAlone, option } from '../../cli/option.ts';
import { parseFlag, wholeNumber } from '../../cli/values.ts';

export interface LogsValues {
  readonly follow: boolean;
  readonly lines?: number;
  readonly raw: boolean;
}

export const logsOptions = (): Option[] => [
  onLineAlone(option('--follow', 'with logs: go on until the run has ended', parseFlag, false)),
  onLineAlone(
    option('--lines <n>', 'with logs: only the last lines (default: all)', wholeNumber(0, 1_000_000)),
  ),
  onLineAlone(option('--raw', "with logs: a terminal's control characters as they are", parseFlag, false)),
];
