/** A job that is watched on a terminal: what needs people comes first, then what runs, with its last line of output. */
import type { JobReport } from '../view/job.ts';
import { renderJob } from './job.ts';
import { renderFrame } from './screen.ts';
import type { FrameOptions, ScreenHead } from './screen.ts';

/** The title, what is said of the job, and the table's own lines. */
const OTHER_ROWS = 9;

export function renderJobScreen(
  report: JobReport,
  head: Omit<ScreenHead, 'what'>,
  options: FrameOptions,
): string {
  const { columns, rows } = options;
  const most = Math.max(1, rows - OTHER_ROWS);
  const lines = renderJob(report, { ...options, sentenceColumns: columns, most })
    .trimEnd()
    .split('\n');
  return renderFrame({ ...head, what: `${report.prefix}/` }, lines, options);
}
