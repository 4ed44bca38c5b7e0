import { onTestFinished } from 'vitest';

import { scene } from './processes.ts';
import type { Scene } from './processes.ts';

/** A scene that is cleaned when its test has finished. */
export function stage(): Scene {
  const made = scene();
  onTestFinished(() => made.clean());
  return made;
}
