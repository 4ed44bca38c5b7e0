/** argv and environment → one typed, frozen command. Runs nothing. */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { ExecOptions } from './commands/exec-deps.ts';
import type { ReleaseOptions } from './commands/release.ts';
import { RunlockError } from './errors.ts';
import {
  durationOr,
  parseCodes,
  parseDuration,
  parseFlag,
  parseGroup,
  parseHold,
  parseNode,
  parsePositiveDuration,
  parseSessionTtl,
  usage,
  wholeNumber,
} from './options.ts';

/** What every command takes. */
export interface Common {
  readonly verbose: boolean;
  readonly quiet: boolean;
  readonly logFormat: 'text' | 'json';
}

export type Invocation =
  | {
      readonly kind: 'exec';
      readonly common: Common;
      readonly options: ExecOptions;
      readonly conflictExitCode: number;
    }
  | {
      readonly kind: 'status';
      readonly common: Common;
      readonly options: {
        readonly prefix: string;
        readonly groups: readonly string[];
        readonly json: boolean;
      };
    }
  | {
      readonly kind: 'release';
      readonly common: Common;
      readonly options: Omit<ReleaseOptions, 'by'> & { readonly json: boolean };
    }
  /** Help or version, for stdout. */
  | { readonly kind: 'text'; readonly text: string };

type Env = Readonly<Record<string, string | undefined>>;

/** Stored option values, by attribute name; each was made by its option's parser. */
type Values = Record<string, unknown>;

interface Context {
  readonly env: Env;
  readonly version: string;
}

/**
 * Reads the command line. A flag comes before its environment variable (`RUNLOCK_<OPTION>`), that before the default.
 * @throws RunlockError `usage`.
 */
export function parse(argv: readonly string[], context: Context): Invocation {
  let invocation: Invocation | undefined;
  let text = '';
  const program = buildProgram(context, (parsed) => (invocation = parsed));
  for (const command of [program, ...program.commands]) {
    command.exitOverride().configureOutput({
      writeOut: (part) => (text += part),
      writeErr: () => undefined,
      outputError: () => undefined,
    });
  }
  try {
    program.parse(argv, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return afterCommander(error, argv, text);
    throw error;
  }
  if (!invocation) throw usage("no command; see 'runlock --help'");
  return Object.freeze(invocation);
}

function afterCommander(error: CommanderError, argv: readonly string[], text: string): Invocation {
  if (error.exitCode === 0) return { kind: 'text', text };
  if (error.code === 'commander.help') throw usage("no command; see 'runlock --help'");
  const [word = ''] = argv;
  const help = ['exec', 'status', 'release'].includes(word) ? `runlock ${word} --help` : 'runlock --help';
  const message = error.message
    .replace(/^error: /, '')
    .replaceAll(/\.?\n+/g, ' ')
    .trim();
  throw new RunlockError('usage', `${message.replace(/\.$/, '')}; see '${help}'`);
}

function buildProgram(context: Context, done: (invocation: Invocation) => void): Command {
  const program = new Command('runlock')
    .description("Runs a configuration-management command under its group's lock in Consul.")
    .version(`runlock ${context.version}`, '-V, --version')
    .enablePositionalOptions()
    .addHelpText(
      'after',
      `
Examples:
  runlock exec -- chef-client
  runlock exec -g prod/web -- ansible-playbook site.yml
  runlock status

Every option can also be given as RUNLOCK_<OPTION> in the environment. Consul is found by its own CONSUL_* variables.`,
    );
  addExec(program, context, done);
  addStatus(program, context, done);
  addRelease(program, context, done);
  return program;
}

function addExec(program: Command, { env }: Context, done: (invocation: Invocation) => void): void {
  const command = program
    .command('exec')
    .description('wait for a slot of the group, run the command in it, give the slot back')
    .usage('[options] -- <command> [args...]')
    .argument('<command>', 'the program to run')
    .argument('[args...]', 'its arguments; they reach it untouched')
    .passThroughOptions();
  addOptions(command, [
    option('-g, --group <path>', 'the nodes that must not all change at once', parseGroup, 'default'),
    option('-n, --slots <n>', 'runs allowed at once in the group', wholeNumber(1, 100_000), 1),
    option(
      '-w, --wait <duration|forever>',
      'how long to wait for a slot; 0 never waits',
      durationOr('forever'),
      3_600_000,
      '1h',
    ),
    option('--splay <duration>', 'random delay before asking, never while holding', parseDuration, 0, '0'),
    option(
      '--hold <duration|forever|none>',
      'how long a failed or vanished run keeps the slot',
      parseHold,
      'forever',
    ),
    option('--timeout <duration>', 'longest run of the command', parsePositiveDuration),
    option('--kill-after <duration>', 'from TERM to KILL', parseDuration, 10_000, '10s'),
    option('--ok-codes <list>', 'exit codes that mean success (default: by tool)', parseCodes),
    option(
      '--reboot-codes <list>',
      'exit codes that mean "will reboot and come back" (default: by tool)',
      parseCodes,
    ),
    option('-E, --conflict-exit-code <n>', 'exit code when no slot was to be had', wholeNumber(0, 255), 75),
    option('--node <name>', "the owner (default: the agent's node name)", parseNode),
    option('--session-ttl <duration>', 'TTL of the Consul session', parseSessionTtl, 30_000, '30s'),
    option('--dry-run', 'say what would happen, run nothing', parseFlag, false),
    prefixOption(),
    ...commonOptions(),
  ]);
  command.addHelpText('after', EXEC_HELP);
  command.action((name: string, args: string[]) => {
    const values = withEnvironment(command, env);
    const { wait, splay, timeout, killAfter, sessionTtl, conflictExitCode, ...rest } = values as Values &
      ExecValues;
    const { group, slots, hold, okCodes, rebootCodes, node, dryRun, prefix } = rest;
    const options: ExecOptions = {
      prefix,
      group,
      slots,
      wait,
      splayMs: splay,
      hold,
      killAfterMs: killAfter,
      sessionTtlMs: sessionTtl,
      dryRun,
      ...(timeout !== undefined && { timeoutMs: timeout }),
      ...(okCodes && { okCodes }),
      ...(rebootCodes && { rebootCodes }),
      ...(node !== undefined && { node }),
      command: name,
      args,
    };
    done({ kind: 'exec', common: toCommon(values), options: Object.freeze(options), conflictExitCode });
  });
}

const EXEC_HELP = `
Durations are like 90s, 10m or 1h30m.

Exit codes: the command's own; 64 wrong usage; 69 Consul not reachable; 75 busy (no slot within --wait, frozen, or this
node already runs or waits); 77 Consul refused; 78 bad configuration; 79 lock lost, command killed; 124 --timeout;
126, 127 command not executable, not found; 128+n the command, or a waiting runlock, died of signal n.

Examples:
  runlock exec -- chef-client
  runlock exec -g prod/web -n 2 -w 30m -- ansible-playbook site.yml
  runlock exec -g prod/db --hold 4h --timeout 1h -- puppet agent --test`;

interface ExecValues {
  group: string;
  slots: number;
  wait: number | 'forever';
  splay: number;
  hold: 'forever' | 'none' | number;
  timeout?: number;
  killAfter: number;
  okCodes?: readonly number[];
  rebootCodes?: readonly number[];
  conflictExitCode: number;
  node?: string;
  sessionTtl: number;
  dryRun: boolean;
  prefix: string;
}

function addStatus(program: Command, { env }: Context, done: (invocation: Invocation) => void): void {
  const command = program
    .command('status')
    .description('who holds, who waits, since when, and why a group stands still')
    .argument('[group...]', 'only these groups', collect(parseGroup), [] as string[]);
  addOptions(command, [
    option('--json', 'the same data as JSON', parseFlag, false),
    prefixOption(),
    ...commonOptions(),
  ]);
  command.action((groups: string[]) => {
    const values = withEnvironment(command, env);
    const { prefix, json } = values as Values & { prefix: string; json: boolean };
    done({ kind: 'status', common: toCommon(values), options: Object.freeze({ prefix, json, groups }) });
  });
}

function addRelease(program: Command, { env }: Context, done: (invocation: Invocation) => void): void {
  const command = program
    .command('release')
    .description("clear a claim that keeps a group: this node's own, or as an operator another's")
    .argument('[group]', 'the group (default: "default")', checked(parseGroup));
  addOptions(command, [
    option('-g, --group <path>', 'the group, as for exec', parseGroup, 'default'),
    option('--owner <node>', "whose claim (default: this agent's node)", parseNode),
    option('--slot <i>', 'only the claim of this slot', wholeNumber(0, 100_000)),
    option('--force', 'also a running one: its command is killed first', parseFlag, false),
    option('--node <name>', 'this node, as for exec', parseNode),
    option('--json', 'what was done, as JSON', parseFlag, false),
    prefixOption(),
    ...commonOptions(),
  ]);
  command.action((named: string | undefined) => {
    const values = withEnvironment(command, env);
    const { prefix, json, group, owner, node, slot, force } = values as Values & ReleaseValues;
    const whose = owner ?? node;
    const options = {
      prefix,
      json,
      force,
      group: named ?? group,
      ...(whose !== undefined && { owner: whose }),
      ...(slot !== undefined && { slot }),
    };
    done({ kind: 'release', common: toCommon(values), options: Object.freeze(options) });
  });
}

interface ReleaseValues {
  prefix: string;
  json: boolean;
  group: string;
  owner?: string;
  node?: string;
  slot?: number;
  force: boolean;
}

const prefixOption = () =>
  option('--prefix <path>', 'where in the KV store all groups are', parseGroup, 'runlock');

const commonOptions = () => [
  option('-v, --verbose', 'say everything on stderr', parseFlag, false),
  option('-q, --quiet', 'say only errors on stderr', parseFlag, false),
  option('--log-format <format>', 'text or json', parseLogFormat, 'text'),
];

function toCommon(values: Values): Common {
  const { verbose, quiet, logFormat } = values as Values & Common;
  return { verbose, quiet, logFormat };
}

function parseLogFormat(text: string): 'text' | 'json' {
  if (text === 'text' || text === 'json') return text;
  throw usage(`'${text}' is no log format; use text or json`);
}

type Parser = (text: string) => unknown;

/** Parsers by option, for the environment: commander keeps them for flags alone. */
const parsers = new WeakMap<Option, Parser>();

function option(
  flags: string,
  description: string,
  parser: Parser,
  fallback?: unknown,
  fallbackText?: string,
): Option {
  const made = new Option(flags, description);
  parsers.set(made, parser);
  if (fallback !== undefined) made.default(fallback, fallbackText);
  // A flag without a value stays commander's own.
  return made.required ? made.argParser(checked(parser)) : made;
}

function addOptions(command: Command, options: readonly Option[]): void {
  for (const each of options) command.addOption(each);
}

/** Commander names the option and the value, and adds what the parser says. */
function checked<T>(parser: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parser(text);
    } catch (error) {
      if (error instanceof RunlockError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  };
}

function collect<T>(parser: (text: string) => T): (text: string, before: T[]) => T[] {
  return (text, before) => [...before, checked(parser)(text)];
}

/** Fills in from RUNLOCK_<OPTION> what no flag gave. */
function withEnvironment(command: Command, env: Env): Values {
  const values: Values = command.opts();
  for (const each of command.options) {
    const name = each.attributeName();
    const variable = `RUNLOCK_${(each.long ?? '').slice(2).replaceAll('-', '_').toUpperCase()}`;
    const text = env[variable];
    if (command.getOptionValueSource(name) === 'cli' || text === undefined || text === '') continue;
    try {
      values[name] = parsers.get(each)?.(text);
    } catch (error) {
      if (error instanceof RunlockError) throw usage(`${variable}=${text}: ${error.message}`);
      throw error;
    }
  }
  return values;
}
