import { readFileSync } from 'node:fs';

import { RunlockError } from '../errors.ts';

/**
 * JavaScript's strings hold no bytes but those of UTF-8: of any others the command would get U+FFFD.
 * `words` are the last of runlock's own command line. Throws `usage` if one of them would not arrive as it is.
 */
export function checkWords(words: readonly string[]): void {
  if (!words.some((word) => word.includes('\uFFFD'))) return;
  const line = readFileSync('/proc/self/cmdline').toString('latin1').split('\0').slice(0, -1);
  const given = line.slice(-words.length);
  const at = words.findIndex((word, index) => Buffer.from(word).toString('latin1') !== given[index]);
  if (at === -1) return;
  const which = at === 0 ? "the command's name" : `argument ${at} of the command`;
  throw new RunlockError(
    'usage',
    `${which} is not UTF-8, and would not reach it as it is; put the call into a script, and run that`,
  );
}

type Env = Readonly<Record<string, string | undefined>>;

/** They are not UTF-8 where the name of a folder is not; a shell sees for itself where it is. */
const FOLDERS = ['PWD', 'OLDPWD'];

/** The variables of runlock's own environment that the command gets as something else: they are not UTF-8 either. */
export function changedVariables(env: Env): string[] {
  const suspect = Object.keys(env).filter((name) => env[name]?.includes('\uFFFD') && !FOLDERS.includes(name));
  if (suspect.length === 0) return [];
  const given = new Set(readFileSync('/proc/self/environ').toString('latin1').split('\0'));
  return suspect.filter((name) => !given.has(Buffer.from(`${name}=${env[name]}`).toString('latin1')));
}
