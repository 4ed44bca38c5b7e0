// Once before all tests that need real programs: finds or fetches them, and tells the workers where they are.
import { existsSync } from 'node:fs';
import { fetchingOn } from './fetching.ts';
import { RUNLOCK } from './program.ts';
import { provisionAll } from './provision.ts';

/** Several at a time: no line that is drawn anew. */
const lines = fetchingOn({ write: (text) => process.stdout.write(text) });

export async function setup(): Promise<void> {
  if (!existsSync(RUNLOCK))
    throw new Error(`${RUNLOCK} is missing: run 'npm run build && npm run build:binary'`);
  Object.assign(process.env, await provisionAll(lines));
}
