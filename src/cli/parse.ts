/** argv, environment and configuration file → one typed, frozen command. Runs nothing. */
import { Command, CommanderError } from 'commander';
import type { Context, Defining, Invocation, Listed, Registered } from './command.ts';
import { applyConfig, fillFromTask, keysOf, noteConfigUse } from './config/apply.ts';
import type { Config } from './config/read.ts';
import { helpColumns, helpLayout } from './help.ts';
import { sayLeftOut, sayMisplaced } from './misplaced.ts';
import { isRunlockError } from '../errors.ts';
import { glossary } from '../text/glossary.ts';
import { wrapHelp } from '../text/wrap.ts';
import { usageOf } from './usage-errors.ts';
import { usage } from './values.ts';

/** All commands, in the order of help. */
export type Commands<Platform> = readonly Listed<Platform>[];

/** Prints help. */
interface Printer {
  write(text: string): Promise<void>;
}

/**
 * Reads the command line. Flags override the environment (`RUNLOCK_<OPTION>`), which overrides the configuration file,
 * which overrides the defaults.
 * @throws RunlockError `usage`; `config`: the file is wrong.
 */
export async function parse<Platform extends Printer>(
  argv: readonly string[],
  commands: Commands<Platform>,
  context: Context,
): Promise<Invocation<Platform>> {
  try {
    return await parseLine(argv, commands, context);
  } catch (error) {
    const named = isRunlockError(error) && commands.find(({ name }) => name === argv[0]);
    const asked = named ? (await named.load()).ifWrong(argv, error) : undefined;
    if (!asked) throw error;
    return asked;
  }
}

async function parseLine<Platform extends Printer>(
  argv: readonly string[],
  commands: Commands<Platform>,
  context: Context,
): Promise<Invocation<Platform>> {
  let invocation: Invocation<Platform> | undefined;
  let text = '';
  // Load only the command that the line names.
  const named = commands.filter(({ name }) => name === argv[0]);
  const program = buildProgram(await loadAll(named.length > 0 ? named : commands), context, {
    done: (parsed) => (invocation = parsed),
    tree: () => commandTree(commands, context),
  });
  const columns = helpColumns(context);
  for (const command of [program, ...program.commands]) {
    command
      .configureHelp(helpLayout)
      .exitOverride()
      .configureOutput({
        // The first part is Commander's table of options; texts of commands follow.
        writeOut: (part) => (text += text === '' ? part : wrapHelp(part, columns)),
        writeErr: () => undefined,
        outputError: () => undefined,
        // Commander would ask process.stdout, which changes descriptors that the command shares.
        getOutHelpWidth: () => columns,
        getErrHelpWidth: () => columns,
        getOutHasColors: () => false,
        getErrHasColors: () => false,
      });
  }
  const command = program.commands.find((each) => each.name() === argv[0]);
  const leftOut = command && sayLeftOut(argv.slice(1), command);
  if (leftOut !== undefined) throw usage(leftOut);
  try {
    await program.parseAsync(argv, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError && error.code === LICENSES)
      return printing('licenses', () => import('./licenses.ts').then(({ licenses }) => licenses));
    if (error instanceof CommanderError) {
      const misplaced = error.code === 'commander.unknownOption' && sayMisplaced(argv, program.commands);
      if (misplaced) throw usage(misplaced);
      if (error.exitCode === 0) return printing('help', () => Promise.resolve(text));
      throw usageOf(
        error,
        argv[0],
        commands.map(({ name }) => name),
      );
    }
    throw error;
  }
  if (!invocation) throw usage("no command; see 'runlock --help'");
  return invocation;
}

interface TaskLine {
  readonly options: Config;
  readonly words: readonly string[];
  /** Of this call alone. */
  readonly flags: readonly string[];
}

/**
 * What a task's file asks of `exec`: its options, and the words of its command.
 * @throws RunlockError `config`, `usage`: options that don't fit together.
 */
export async function readTask<Platform>(
  exec: Registered<Platform>,
  { options, words, flags }: TaskLine,
  defining: Defining,
): Promise<Invocation<Platform>> {
  let invocation: Invocation<Platform> | undefined;
  const program = buildProgram([exec], defining, {
    done: (parsed) => (invocation = parsed),
    tree: defining.tree,
    task: options,
  });
  for (const command of [program, ...program.commands]) command.exitOverride();
  await program.parseAsync([exec.name, ...flags, '--', ...words], { from: 'user' });
  if (!invocation) throw usage('the task has no command');
  return invocation;
}

/** Prints a text instead of running a command, such as for --help. */
const printing = <Platform extends Printer>(
  kind: string,
  text: () => Promise<string>,
): Invocation<Platform> => ({
  kind,
  asked: undefined,
  run: async (platform) => {
    await platform.write(await text());
    return 0;
  },
});

const LICENSES = 'runlock.licenses';

/** All commands, to describe them in completion, the man page and docs/commands.md. */
export async function commandTree<Platform>(
  commands: Commands<Platform>,
  context: Context,
): Promise<Command> {
  const tree = () => commandTree(commands, context);
  return buildProgram(await loadAll(commands), context, { done: () => undefined, tree });
}

const loadAll = <Platform>(commands: Commands<Platform>): Promise<readonly Registered<Platform>[]> =>
  Promise.all(commands.map(({ load }) => load()));

interface Reading<Platform> extends Pick<Defining, 'tree'> {
  readonly done: (invocation: Invocation<Platform>) => void;
  /** What a task's file says of the command's options. */
  readonly task?: Config;
}

function buildProgram<Platform>(
  commands: readonly Registered<Platform>[],
  context: Context,
  { done, tree, task }: Reading<Platform>,
): Command {
  const program = new Command('runlock')
    .description("Runs a configuration-management command under its group's lock in Consul.")
    .version([`runlock ${context.version}`, context.build].join('\n').trimEnd(), '-V, --version')
    .option('--licenses', 'print the licences of this program and its dependencies')
    .on('option:licenses', () => {
      throw new CommanderError(0, LICENSES, '');
    })
    .enablePositionalOptions()
    .addHelpText(
      'after',
      `
Words:
${glossary.map(([word, meaning]) => `  ${word.padEnd(9)}${meaning}`).join('\n')}

Examples:
  runlock exec -- chef-client
  runlock exec -g prod/web -- ansible-playbook site.yml
  runlock status

Every option can also be set as RUNLOCK_<OPTION> in the environment, and most of them in /etc/runlock/config.toml
('runlock config --help'). Consul's own CONSUL_* variables say where Consul is.`,
    );
  const defining: Defining = { ...context, tree };
  for (const { name, define, config } of commands) {
    define(program, defining, done);
    const command = program.commands.find((each) => each.name() === name);
    if (command) noteConfigUse(command, config);
  }
  return program.hook('preAction', (_, command) => {
    if (task) fillFromTask(command, task);
    return applyConfig(command, context, async () => keysOf((await tree()).commands));
  });
}
