/** How a run ended: the command's own end, what that means of its tool, and what ended it. Pure. */
import { exitStatusOf } from '../platform/signals.ts';
import type { Ending } from '../process/command.ts';
import { assertNever } from '../errors.ts';
import type { Outcome } from '../lock/records.ts';
import type { Cause } from '../events/events.ts';

/**
 * By then a signal that the terminal sent to runlock and to the command has reached both. A command that ends this soon
 * after it has ended by it, whatever its status says.
 */
export const SIGNAL_MS = 100;

/** A signal that was typed at the command and runlock alike. */
export interface Typed {
  readonly signal: NodeJS.Signals;
  readonly atMs: number;
}

export interface CommandEnd {
  readonly ending: Ending;
  readonly atMs: number;
  readonly meanings: CodeMeanings;
}

/** Whether the command ended by a signal that was typed: its status says so, or it ended at once. */
export function isEndOf({ signal, atMs }: Typed, { ending, atMs: endedMs, meanings }: CommandEnd): boolean {
  if (ending.kind === 'signalled') return ending.signal === signal || endedMs - atMs <= SIGNAL_MS;
  const codes = [exitStatusOf(signal), meanings.signals?.[signal]];
  return codes.includes(ending.code) || endedMs - atMs <= SIGNAL_MS;
}

/** The command's own code; 128 and its signal's number where a signal ended it, as a shell says it. */
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
  /** A signal ended the run, by the signal's name. Every tool may say it with 128 and the signal's number too. */
  readonly signals?: SignalCodes;
}

type SignalCodes = Readonly<Partial<Record<NodeJS.Signals, number>>>;

/** Known by base name; everything else succeeds with 0 alone. No option of Chef's or Ansible's changes their codes. */
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

/** One of puppet's applications: long names, and the letters of those that have one. */
interface Application {
  /** Options that bring the detailed exit codes. */
  readonly detailed: readonly string[];
  readonly detailedLetters: string;
  /** Options whose value may stand in the next word, even if that looks like an option. */
  readonly valued: readonly string[];
  readonly valuedLetters: string;
}

/**
 * As in puppet/application/*.rb. Puppet's settings are options too, but puppet refuses (1) a value of theirs that looks like
 * an option, unless their name is cut short; and a 2 too many here does no harm, since without detailed codes puppet never
 * ends with it. `E` is the letter of one of them, the environment.
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

/** Whether puppet would say by 2 that it changed something: its words read as its own parser, Ruby's optparse, does. */
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

/** Names may be cut short, in capitals, and with underscores. What fits several options puppet refuses. */
function readLong(word: string, { detailed, valued }: Application): Read {
  const [name = '', ...value] = word.slice(2).toLowerCase().replaceAll('_', '-').split('=');
  const means = (option: string) => option.startsWith(name);
  if (detailed.some(means)) return 'detailed';
  return value.length === 0 && valued.some(means) ? 'takes-next' : 'other';
}

/** Letters can share a dash; what follows one that takes a value is that value. */
function readLetters(word: string, { detailedLetters, valuedLetters }: Application): Read {
  const [, letter = '', rest] =
    new RegExp(`^-.*?([${detailedLetters}${valuedLetters}])(.*)$`, 's').exec(word) ?? [];
  if (letter === '') return 'other';
  if (detailedLetters.includes(letter)) return 'detailed';
  return rest === '' ? 'takes-next' : 'other';
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
