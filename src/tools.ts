/**
 * What the tools mean by their exit codes.
 * Chef RFC 062 (exit status handling); puppet-apply(8), `--detailed-exitcodes`; ansible/cli/__init__.py.
 */

export interface CodeMeanings {
  /** The run succeeded. */
  readonly ok: readonly number[];
  /** The node will reboot and come back. */
  readonly reboot: readonly number[];
  /** A signal ended the run, by the signal's name. Every tool may say it with 128 and the signal's number too. */
  readonly signals?: SignalCodes;
}

type SignalCodes = Readonly<Partial<Record<NodeJS.Signals, number>>>;

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

/** The codes of its own that a tool ends with when a signal stops it; known by base name. */
export function signalCodes(commandName: string): SignalCodes {
  switch (commandName) {
    case 'chef-client':
    case 'cinc-client':
      return { SIGINT: 2, SIGTERM: 3 };
    case 'ansible':
    case 'ansible-playbook':
    case 'ansible-pull':
      return { SIGINT: 99 };
    default:
      return {};
  }
}
