// The command tree → what a page says of each command.
import type { Argument, Command, Option } from 'commander';

export interface Term {
  /** `-g, --group <path>`, or an argument's name. */
  readonly term: string;
  readonly about: string;
  /** Empty: none. */
  readonly fallback: string;
}

export interface CommandPage {
  readonly name: string;
  readonly usage: string;
  readonly about: string;
  readonly operands: readonly Term[];
  readonly options: readonly Term[];
  /** What its help says after the options: blocks of lines. */
  readonly notes: readonly (readonly string[])[];
  readonly examples: readonly string[];
}

export interface Pages {
  readonly about: string;
  readonly commands: readonly CommandPage[];
  /** Options that every command has; they are not among the commands' own. */
  readonly shared: readonly Term[];
  readonly examples: readonly string[];
  /** The glossary, as help shows it. */
  readonly words: readonly string[];
}

export function describePages(program: Command): Pages {
  const help = program.createHelp();
  const commands = help.visibleCommands(program).filter((command) => command.name() !== 'help');
  const pages = commands.map(describeCommand);
  const inAll = ({ term, about }: Term) =>
    pages.every(({ options }) => options.some((each) => each.term === term && each.about === about));
  const shared = pages[0]?.options.filter(inAll) ?? [];
  const { examples, notes } = splitHelp(program);
  const isShared = ({ term }: Term) => shared.some((each) => each.term === term);
  return {
    about: program.description(),
    commands: pages.map((page) => ({ ...page, options: page.options.filter((each) => !isShared(each)) })),
    shared,
    examples,
    words: notes.find(([first]) => first === 'Words:') ?? [],
  };
}

function describeCommand(command: Command): CommandPage {
  const help = command.createHelp();
  return {
    name: command.name(),
    usage: help.commandUsage(command),
    about: command.description(),
    operands: help.visibleArguments(command).map(describeArgument),
    options: command.options.filter(({ hidden }) => !hidden).map(describeOption),
    ...splitHelp(command),
  };
}

/** The texts that were added to a command's help, and the examples among them. */
function splitHelp(command: Command): Pick<CommandPage, 'notes' | 'examples'> {
  let text = '';
  command.configureOutput({ writeOut: (part) => (text += part) }).outputHelp();
  const added = text.slice(command.helpInformation().length).trimEnd();
  const blocks = added
    .split(/\n{2,}/)
    .map((block) => block.split('\n').filter((line) => line !== ''))
    .filter((lines) => lines.length > 0);
  const isExamples = ([first]: readonly string[]) => first === 'Examples:';
  return {
    notes: blocks.filter((lines) => !isExamples(lines)),
    examples: (blocks.find(isExamples) ?? []).slice(1).map((line) => line.trim()),
  };
}

export const describeOption = ({
  flags,
  description,
  defaultValue,
  defaultValueDescription,
}: Option): Term => ({
  term: flags,
  ...splitDefault(description, defaultValueDescription ?? textOf(defaultValue)),
});

const describeArgument = (argument: Argument): Term => ({
  term: argument.name(),
  ...splitDefault(argument.description, argument.defaultValueDescription ?? textOf(argument.defaultValue)),
});

function textOf(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
}

/** A default that is no value stands in the description: `(default: by tool)`. */
function splitDefault(description: string, fallback: string): Pick<Term, 'about' | 'fallback'> {
  const [, about = description, said = fallback] = /^(.*) \(default: (.*)\)$/s.exec(description) ?? [];
  return { about, fallback: said.replaceAll('"', '') };
}
