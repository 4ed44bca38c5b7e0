import { setTimeout as sleep } from 'node:timers/promises';

import type { Clock } from '../../../src/platform/deps.ts';

export const realClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms, { signal }) => sleep(ms, undefined, { signal }),
};
