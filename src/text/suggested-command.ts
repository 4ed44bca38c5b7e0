/** Commands that people are told to run: they copy them as they stand. */

/** Where all groups are in the KV store, unless `--prefix` says otherwise. */
export const DEFAULT_PREFIX = 'runlock';

/** `runlock <words>` as a POSIX shell takes it, and below the same prefix: elsewhere it would find nothing, or another's. */
export function hint(prefix: string, ...words: readonly string[]): string {
  const where = prefix === DEFAULT_PREFIX ? [] : ['--prefix', prefix];
  return ['runlock', ...words, ...where].map(quote).join(' ');
}

/** The command that ends what runlock has set on a node, on the node itself. */
export function leaveHint(prefix: string, services: readonly string[]): string {
  return hint(prefix, 'gate', 'leave', '--service', services.join(',') || 'auto');
}

/** A word as a POSIX shell takes it. */
export function quote(word: string): string {
  return /^[\w./@%+=:,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
