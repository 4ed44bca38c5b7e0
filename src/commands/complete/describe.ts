/** The command tree → the shapes that completion needs. */
import type { Argument, Command, Option } from 'commander';
import type { CommandShape, OperandShape, OptionShape, ValueShape } from './complete.ts';

/** All commands that are not hidden, with `help`, and the options that come before any command. */
export function describeProgram(program: Command): { commands: CommandShape[]; options: OptionShape[] } {
  const help = program.createHelp();
  const commands = help.visibleCommands(program).map((command) => ({
    name: command.name(),
    about: command.description(),
    options: help.visibleOptions(command).map(describeOption),
    operands: command.registeredArguments.map((each, i, all) =>
      each.name() === 'name' && command.name() === 'job'
        ? { words: [], variadic: false, from: 'job' as const }
        : describeOperand(each, all[i + 1]),
    ),
  }));
  return { commands, options: help.visibleOptions(program).map(describeOption) };
}

function describeOption(option: Option): OptionShape {
  const flags = [option.short, option.long].filter((flag) => flag !== undefined);
  const value = option.required || option.optional ? { value: valueOf(option) } : {};
  return { flags, about: firstLine(option.description), ...value };
}

/** Placeholders. Any other word of an alternative (`forever` in `<duration|forever>`) is typed literally. */
const KINDS = ['duration', 'file', 'group', 'list', 'n', 'n%', 'n%,', 'name', 'node', 'path'];

/** Values that are looked up, by long flag. */
const LIVE: Readonly<Record<string, NonNullable<ValueShape['from']>>> = {
  '--group': 'group',
  '--owner': 'owner',
  '--forget': 'recorded',
  '--node': 'agent',
  '--from-job': 'job',
  '--until': 'condition',
  '--while': 'condition',
  '--when': 'condition',
  // The path; `=` and the value are typed.
  '--publish': 'state',
  '--during': 'state',
};

function valueOf({ flags, long, argChoices }: Option): ValueShape {
  const [, placeholder = ''] = /[<[]([^>\]]+)[>\]]/.exec(flags) ?? [];
  const parts = placeholder.replace('...', '').split('|');
  const words = argChoices ?? (parts.length > 1 ? parts.filter((part) => !KINDS.includes(part)) : []);
  const from = LIVE[long ?? ''] ?? (parts.includes('file') ? 'file' : undefined);
  return { words, ...(from && { from }) };
}

/** Operands that are looked up, by name. */
const LIVE_OPERANDS: Readonly<Record<string, NonNullable<ValueShape['from']>>> = {
  group: 'group',
  path: 'state',
};

/** `<command> [args...]` is another program's command line; `[command]` alone is a command of runlock. */
function describeOperand(argument: Argument, next: Argument | undefined): OperandShape {
  const name = argument.name();
  const command = next ? 'program' : 'command';
  const from = name === 'command' ? command : LIVE_OPERANDS[name];
  return { words: argument.argChoices ?? [], variadic: argument.variadic, ...(from && { from }) };
}

const firstLine = (text: string) => text.split('\n')[0] ?? '';
