/**
 * What the tools mean by their exit codes.
 * Chef RFC 062 (exit status handling); puppet-apply(8), `--detailed-exitcodes`.
 */

export interface CodeMeanings {
  /** The run succeeded. */
  readonly ok: readonly number[];
  /** The node will reboot and come back. */
  readonly reboot: readonly number[];
}

/** Known by base name; everything else succeeds with 0 alone. */
export function codeMeanings(commandName: string, args: readonly string[]): CodeMeanings {
  switch (commandName) {
    case 'chef-client':
    case 'cinc-client':
      return { ok: [0, 213], reboot: [35, 37] };
    case 'puppet':
      return { ok: hasDetailedExitCodes(args) ? [0, 2] : [0], reboot: [] };
    default:
      return { ok: [0], reboot: [] };
  }
}

/** `--test` implies `--detailed-exitcodes`; the last word wins. */
function hasDetailedExitCodes(args: readonly string[]): boolean {
  const words = args.filter((arg) => /^(?:--(?:no-)?detailed-exitcodes|--test|-t)$/.test(arg));
  return words.length > 0 && words.at(-1) !== '--no-detailed-exitcodes';
}
