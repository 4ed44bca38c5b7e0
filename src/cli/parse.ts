/** argv, environment and configuration file → one typed, frozen command. Runs nothing. */
import { Command, CommanderError } from 'commander';
import { addComplete, addCompletion } from './completion.ts';
import { addAcquire } from './acquire.ts';
import { addConfig } from './config.ts';
import { applyConfig, keysOf } from './config/apply.ts';
import { addDoctor } from './doctor.ts';
import { addExec } from './exec.ts';
import { addGate } from './gate.ts';
import { addHistory } from './history.ts';
import { addFreeze } from './freeze.ts';
import type { Context, Done, Invocation } from './invocation.ts';
import { sayMisplaced } from './misplaced.ts';
import { addRelease } from './release.ts';
import { addStatus, orUnknown } from './status.ts';
import { addThaw } from './thaw.ts';
import { RunlockError } from '../errors.ts';
import { usage } from './values.ts';

/**
 * Reads the command line. A flag comes before its environment variable (`RUNLOCK_<OPTION>`), that before the
 * configuration file, that before the default.
 * @throws RunlockError `usage`; `config` for the file.
 */
export function parse(argv: readonly string[], context: Context): Promise<Invocation> {
  return orUnknown(argv, () => parseLine(argv, context));
}

async function parseLine(argv: readonly string[], context: Context): Promise<Invocation> {
  let invocation: Invocation | undefined;
  let text = '';
  const program = buildProgram(argv, context, (parsed) => (invocation = parsed));
  for (const command of [program, ...program.commands]) {
    command.exitOverride().configureOutput({
      writeOut: (part) => (text += part),
      writeErr: () => undefined,
      outputError: () => undefined,
      // Its own ways to know look at process.stdout, which changes what a command shares.
      getOutHelpWidth: () => context.stdout?.columns || HELP_COLUMNS,
      getErrHelpWidth: () => HELP_COLUMNS,
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    });
  }
  try {
    await program.parseAsync(argv, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError && error.code === LICENSES) return { kind: 'licenses' };
    if (error instanceof CommanderError) {
      const misplaced = error.code === 'commander.unknownOption' && sayMisplaced(argv, program.commands);
      if (misplaced) throw usage(misplaced);
      return afterCommander(error, argv, text);
    }
    throw error;
  }
  if (!invocation) throw usage("no command; see 'runlock --help'");
  return Object.freeze(invocation);
}

function afterCommander(error: CommanderError, argv: readonly string[], text: string): Invocation {
  if (error.exitCode === 0) return { kind: 'text', text };
  if (error.code === 'commander.help') throw usage("no command; see 'runlock --help'");
  const [word = ''] = argv;
  const help = Object.hasOwn(commands, word) ? `runlock ${word} --help` : 'runlock --help';
  const message = error.message
    .replace(/^error: /, '')
    .replaceAll(/\.?\n+/g, ' ')
    .trim();
  throw new RunlockError('usage', `${message.replace(/\.$/, '')}; see '${help}'`);
}

const LICENSES = 'runlock.licenses';
/** Of no terminal. */
const HELP_COLUMNS = 80;

type Add = (program: Command, context: Context, done: Done) => void;
const commands: Readonly<Record<string, Add>> = {
  exec: addExec,
  acquire: addAcquire,
  status: addStatus,
  release: addRelease,
  history: addHistory,
  freeze: addFreeze,
  thaw: addThaw,
  gate: addGate,
  doctor: addDoctor,
  completion: addCompletion,
  config: (program, context, done) => addConfig(program, context, { done, tree: () => commandTree(context) }),
  __complete: (program, context, done) =>
    addComplete(program, context, { done, tree: () => commandTree(context) }),
};

/** Every command, for what describes them all: completion, the man page, the README. */
export function commandTree(context: Context): Command {
  return buildProgram([], context, () => undefined);
}

function buildProgram([word = '']: readonly string[], context: Context, done: Done): Command {
  const program = new Command('runlock')
    .description("Runs a configuration-management command under its group's lock in Consul.")
    .version([`runlock ${context.version}`, context.build].join('\n').trimEnd(), '-V, --version')
    .option('--licenses', 'print the licences of all that is in this program')
    .on('option:licenses', () => {
      throw new CommanderError(0, LICENSES, '');
    })
    .enablePositionalOptions()
    .addHelpText(
      'after',
      `
Examples:
  runlock exec -- chef-client
  runlock exec -g prod/web -- ansible-playbook site.yml
  runlock status

Every option can also be given as RUNLOCK_<OPTION> in the environment, and what is not for one call alone in
/etc/runlock/config.toml ('runlock config --help'). Consul is found by its own CONSUL_* variables.`,
    );
  // The options of the command that is named are all that is needed.
  const named = Object.hasOwn(commands, word) ? commands[word] : undefined;
  for (const add of named ? [named] : Object.values(commands)) add(program, context, done);
  const keys = () => keysOf(commandTree(context).commands);
  return program.hook('preAction', (_, command) => applyConfig(command, context, keys));
}
