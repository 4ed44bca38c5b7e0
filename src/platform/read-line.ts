/** One line that a person types. */
import { closeSync, openSync, readSync } from 'node:fs';

/**
 * Waits for a line of the terminal that the descriptor is, with signals acting as they do by default; empty at its end.
 * The terminal is opened anew: somebody may have made the descriptor non-blocking.
 */
export function readLine(fd: number): string {
  const own = reopen(fd);
  try {
    const bytes = Buffer.alloc(1024);
    let line = '';
    while (!line.includes('\n')) {
      const count = readSync(own ?? fd, bytes);
      if (count === 0) break;
      line += bytes.toString('utf8', 0, count);
    }
    return line;
  } catch {
    // Nobody has typed anything.
    return '';
  } finally {
    if (own !== undefined) closeSync(own);
  }
}

function reopen(fd: number): number | undefined {
  try {
    return openSync(`/proc/self/fd/${fd}`, 'r');
  } catch {
    // Another user's terminal: su(1), sudo(8).
    return undefined;
  }
}
