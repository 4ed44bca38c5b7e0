/** What would go wrong with a command as soon as it is started, whatever command it is. */
import { isUtf8 } from 'node:buffer';
import { accessSync, constants, readFileSync, readlinkSync } from 'node:fs';

import { RunlockError } from './errors.ts';

/**
 * The command starts in runlock's own folder, and execa goes there once more.
 * Throws `not-executable` where that can't be done; whoever may not enter a folder can still be in it (sudo -u).
 */
export function checkFolder(command: string): void {
  // Not process.cwd(): it remembers what it said first.
  const bytes = readlinkSync('/proc/self/cwd', 'buffer');
  const why = whyNotEnter(bytes) ?? (isUtf8(bytes) ? undefined : `the name of ${IT} is not UTF-8`);
  if (why === undefined) return;
  throw new RunlockError('not-executable', `cannot run ${command}: ${why}; start it in another folder`);
}

const IT = 'the folder that runlock was started in';

function whyNotEnter(folder: Buffer): string | undefined {
  try {
    accessSync(folder, constants.X_OK);
    return undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return `${IT} is gone`;
    return `this user may not enter ${folder.toString()}, where runlock was started`;
  }
}

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
