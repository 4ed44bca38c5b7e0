// What a host tells the built program of itself, as a test sets it: its boot id and its wall clock.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { preloading } from './program.ts';

// Whatever runs inside the program asks for both by these two functions.
const PRELOAD = `
const fs = require('node:fs');
const { readFileSync, writeFileSync } = fs;
const { PRETENDED_BOOT, PRETENDED_CLOCK } = process.env;
const now = Date.now;
Date.now = () => {
  const ahead = readFileSync(PRETENDED_CLOCK, 'utf8');
  if (ahead !== '0') writeFileSync(PRETENDED_CLOCK + '.seen', ahead);
  return now() + Number(ahead);
};
fs.readFileSync = (file, ...more) => {
  if (file !== '/proc/sys/kernel/random/boot_id') return readFileSync(file, ...more);
  return readFileSync(file, 'utf8').trim() + readFileSync(PRETENDED_BOOT, 'utf8');
};
`;

/** Its files are in `folder`, and begin with `name`. At first it tells what the real host does. */
export function pretendedHost(folder: string, name: string) {
  const preload = join(folder, 'preload.cjs');
  writeFileSync(preload, PRELOAD);
  const [boot, clock] = [join(folder, `${name}.boot`), join(folder, `${name}.ahead`)];
  // All at once: nobody must read half of it.
  const set = (file: string, text: string) => {
    writeFileSync(`${file}.new`, text);
    renameSync(`${file}.new`, file);
  };
  const jump = (aheadMs: number) => set(clock, String(aheadMs));
  jump(0);
  set(boot, '');
  let boots = 0;
  return {
    env: { ...preloading(preload), PRETENDED_BOOT: boot, PRETENDED_CLOCK: clock },
    /** Sets the wall clock, in milliseconds ahead of the right time. */
    jump,
    /** Whether a program has read the clock since it was set to this. */
    hasSeen: (aheadMs: number) => expect(readFileSync(`${clock}.seen`, 'utf8')).toBe(String(aheadMs)),
    /** Another boot id. What the programs of before still do is up to who calls this. */
    boot: () => set(boot, `-${(boots += 1)}`),
  };
}
