/** `status --watch`: the view that is redrawn on the terminal's alternate screen. */
import { renderFrame } from './screen.ts';
import type { FrameOptions, ScreenHead } from './screen.ts';
import { renderStatus } from './status.ts';
import type { RenderOptions } from './status.ts';
import type { StatusReport } from '../view/report.ts';

export interface ScreenView extends Omit<ScreenHead, 'what'> {
  readonly report: StatusReport;
}

export interface ScreenOptions extends RenderOptions, FrameOptions {
  readonly columns: number;
}

export function renderScreen({ report, ...head }: ScreenView, options: ScreenOptions): string {
  const lines = renderStatus(report, options).trimEnd().split('\n');
  return renderFrame({ ...head, what: `${report.prefix}/` }, lines, options);
}
