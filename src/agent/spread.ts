/** How long a node waits before it reads what all targets of a job have just been told: they must not all ask at once. Pure. */
import { hashOf } from '../jobs/stage.ts';

/** Targets a second. */
const RATE = 500;

/** Milliseconds, the same for a node each time. */
export function spreadMs(node: string, targets: number): number {
  const seconds = Math.floor(targets / RATE);
  return seconds === 0 ? 0 : (hashOf(node) % (seconds * 1_000)) | 0;
}
