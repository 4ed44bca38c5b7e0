/** How a run ended: how the command ended, what its exit code means for that tool, and what caused the end. Pure. */
import { exitStatusOf } from '../platform/signals.ts';
import type { Ending } from '../process/command.ts';
import { assertNever } from '../errors.ts';
import type { Outcome } from '../lock/records.ts';
import type { Cause } from '../events/events.ts';

/**
 * Within this time a signal from the terminal has reached both runlock and the command. A command that ends this soon
 * after the signal is taken to have ended because of it, whatever its status.
 */
export const SIGNAL_MS = 100;

/** A signal that was typed at the terminal, which sends it to both the command and runlock. */
export interface Typed {
  readonly signal: NodeJS.Signals;
  readonly atMs: number;
}

export interface CommandEnd {
  readonly ending: Ending;
  readonly atMs: number;
  readonly meanings: CodeMeanings;
}

/** Whether a typed signal ended the command: its status says so, or it ended right after the signal. */
export function isEndOf({ signal, atMs }: Typed, { ending, atMs: endedMs, meanings }: CommandEnd): boolean {
  if (ending.kind === 'signalled') return ending.signal === signal || endedMs - atMs <= SIGNAL_MS;
  const codes = [exitStatusOf(signal), meanings.signals?.[signal]];
  return codes.includes(ending.code) || endedMs - atMs <= SIGNAL_MS;
}

/** The command's own code, or 128 plus the signal's number if a signal ended it, as in a shell. */
export function exitCodeOf(ending: Ending): number {
  if (ending.kind === 'exited') return ending.code;
  return exitStatusOf(ending.signal);
}

export const isOk = (ending: Ending, meanings: CodeMeanings) =>
  ending.kind === 'exited' && meanings.ok.includes(ending.code);

export function outcomeOf(ending: Ending, cause: Cause | undefined, meanings: CodeMeanings): Outcome {
  switch (cause?.kind) {
    case 'evicted':
      return 'evicted';
    case 'lost':
    case 'cut-off':
      return 'lost';
    case 'timed-out':
      return 'timed-out';
    // The node may be half done, as after a failure.
    case 'cancelled':
      return 'failed';
    case 'signal':
    case undefined:
      break;
    default:
      return assertNever(cause);
  }
  if (isOk(ending, meanings)) return 'succeeded';
  if (ending.kind === 'exited' && meanings.reboot.includes(ending.code)) return 'rebooting';
  return cause ? 'interrupted' : 'failed';
}

/**
 * What the tools mean by their exit codes.
 * Chef RFC 062 (exit status handling); puppet-agent(8), puppet-apply(8), puppet-device(8), `--detailed-exitcodes`;
 * ansible/cli/__init__.py.
 */
export interface CodeMeanings {
  /** The run succeeded. */
  readonly ok: readonly number[];
  /** The node will reboot and come back. */
  readonly reboot: readonly number[];
  /**
   * Exit codes for a run that a signal ended, by signal name. Any tool may use 128 plus the signal's number instead.
   */
  readonly signals?: SignalCodes;
}

type SignalCodes = Readonly<Partial<Record<NodeJS.Signals, number>>>;

/** Tools are known by base name; all others succeed only with 0. No option of Chef or Ansible changes their codes. */
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

/** Options of one of puppet's applications: their long names, and the letters of those that have one. */
interface Application {
  /** Options that turn on the detailed exit codes. */
  readonly detailed: readonly string[];
  readonly detailedLetters: string;
  /** Options whose value may be the next word, even if that word looks like an option. */
  readonly valued: readonly string[];
  readonly valuedLetters: string;
}

/**
 * As in puppet/application/*.rb. Puppet's settings are options too, but puppet exits with 1 when a setting's value
 * looks like an option, unless the setting's name is abbreviated. To accept 2 by mistake does no harm, since puppet
 * never exits with 2 without detailed codes. `E` is the letter of one setting, the environment.
 */
const APPLICATIONS: Readonly<Record<string, Application>> = {
  agent: {
    detailed: ['test', 'detailed-exitcodes'],
    detailedLetters: 't',
    valued: ['fqdn', 'digest', 'sourceaddress', 'logdest', 'waitforcert', 'job-id'],
    valuedLetters: 'flwE',
  },
  apply: {
    detailed: ['test', 'detailed-exitcodes'],
    detailedLetters: 't',
    valued: ['execute', 'catalog', 'logdest'],
    valuedLetters: 'eclE',
  },
  // Its -t is --target.
  device: {
    detailed: ['detailed-exitcodes'],
    detailedLetters: '',
    valued: ['libdir', 'apply', 'logdest', 'waitforcert', 'port', 'target'],
    valuedLetters: 'lwptE',
  },
};

/** Whether puppet would exit with 2 after changes. Reads the words as puppet's own parser, Ruby's optparse, does. */
function hasDetailedExitCodes([name = '', ...words]: readonly string[]): boolean {
  const application = Object.hasOwn(APPLICATIONS, name) ? APPLICATIONS[name] : undefined;
  if (!application) return false;
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? '';
    if (word === '--') return false;
    const read = word.startsWith('--') ? readLong(word, application) : readLetters(word, application);
    if (read === 'detailed') return true;
    if (read === 'takes-next') at += 1;
  }
  return false;
}

type Read = 'detailed' | 'takes-next' | 'other';

/** Names may be abbreviated, in capitals, and with underscores. Puppet refuses a name that fits several options. */
function readLong(word: string, { detailed, valued }: Application): Read {
  const [name = '', ...value] = word.slice(2).toLowerCase().replaceAll('_', '-').split('=');
  const means = (option: string) => option.startsWith(name);
  if (detailed.some(means)) return 'detailed';
  return value.length === 0 && valued.some(means) ? 'takes-next' : 'other';
}

/** Several letters can share a dash; the rest of the word after a letter that takes a value is that value. */
function readLetters(word: string, { detailedLetters, valuedLetters }: Application): Read {
  const [, letter = '', rest] =
    new RegExp(`^-.*?([${detailedLetters}${valuedLetters}])(.*)$`, 's').exec(word) ?? [];
  if (letter === '') return 'other';
  if (detailedLetters.includes(letter)) return 'detailed';
  return rest === '' ? 'takes-next' : 'other';
}
/** The tool-specific exit codes of a tool that a signal stopped; tools are known by base name. */
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
