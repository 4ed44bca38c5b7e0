/** Describes the run of a claim in words. */
import { formatAge } from './age.ts';

/** The command and how it ended: `puppet, exit 4`. */
export function endedText({
  command = '?',
  exitCode,
  unhealthy,
}: {
  readonly command?: string;
  readonly exitCode?: number;
  /** The node was not healthy after the run. */
  readonly unhealthy?: boolean;
}): string {
  if (unhealthy) return `${command}, services unhealthy afterwards`;
  return exitCode === undefined ? command : `${command}, exit ${exitCode}`;
}

/** State of a claim and its age in milliseconds: `running puppet for 3m`, `failed 3m ago (puppet, exit 4)`. */
export function stateText({
  state,
  forMs,
  ...ran
}: {
  readonly state: string;
  readonly forMs: number;
  readonly command?: string;
  readonly exitCode?: number;
  readonly unhealthy?: boolean;
}): string {
  const age = formatAge(forMs);
  if (state === 'running') return `running ${endedText(ran)} for ${age}`;
  const lasts = state === 'held' || state === 'rebooting';
  return `${state} ${lasts ? `for ${age}` : `${age} ago`} (${endedText(ran)})`;
}

/** Of a run that no live session holds a slot for, from one look. */
export const SESSION_GONE = 'its session is gone, so it may have ended';
