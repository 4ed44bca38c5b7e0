/** Commands for people to copy and run. */

/** Default KV path of all groups. */
export const DEFAULT_PREFIX = 'runlock';

/** `runlock <words>`, quoted for a POSIX shell, with `--prefix` unless it is the default. */
export function hint(prefix: string, ...words: readonly string[]): string {
  const where = prefix === DEFAULT_PREFIX ? [] : ['--prefix', prefix];
  return ['runlock', ...words, ...where].map(quote).join(' ');
}

/** The command that ends maintenance that runlock has set; run it on the node itself. */
export function leaveHint(prefix: string, services: readonly string[]): string {
  return hint(prefix, 'gate', 'leave', '--service', services.join(',') || 'auto');
}

/** A word, quoted for a POSIX shell if necessary. */
export function quote(word: string): string {
  return /^[\w./@%+=:,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
