/** The command tree → what completion needs to know of it. */
import type { Argument, Command, Option } from 'commander';
import type { CommandShape, OperandShape, OptionShape, ValueShape } from './complete.ts';

/** Every command that is not hidden, `help` included, and the options before any command. */
export function describeProgram(program: Command): { commands: CommandShape[]; options: OptionShape[] } {
  const help = program.createHelp();
  const commands = help.visibleCommands(program).map((command) => ({
    name: command.name(),
    about: command.description(),
    options: help.visibleOptions(command).map(describeOption),
    operands: command.registeredArguments.map((each, i, all) => describeOperand(each, all[i + 1])),
  }));
  return { commands, options: help.visibleOptions(program).map(describeOption) };
}

function describeOption(option: Option): OptionShape {
  const flags = [option.short, option.long].filter((flag) => flag !== undefined);
  const value = option.required || option.optional ? { value: valueOf(option) } : {};
  return { flags, about: firstLine(option.description), ...value };
}

/** What a name in a placeholder stands for; any other word in one with several (`<duration|forever>`) is typed as it is. */
const KINDS = ['duration', 'file', 'group', 'list', 'n', 'name', 'node', 'path'];

/** Values that are looked up, by the long flag. */
const LIVE: Readonly<Record<string, NonNullable<ValueShape['from']>>> = {
  '--group': 'group',
  '--owner': 'owner',
  '--forget': 'recorded',
};

function valueOf({ flags, long, argChoices }: Option): ValueShape {
  const [, placeholder = ''] = /[<[]([^>\]]+)[>\]]/.exec(flags) ?? [];
  const parts = placeholder.replace('...', '').split('|');
  const words = argChoices ?? (parts.length > 1 ? parts.filter((part) => !KINDS.includes(part)) : []);
  const from = LIVE[long ?? ''] ?? (parts.includes('file') ? 'file' : undefined);
  return { words, ...(from && { from }) };
}

/** Operands that are looked up, by their names. */
const LIVE_OPERANDS: Readonly<Record<string, NonNullable<ValueShape['from']>>> = {
  group: 'group',
  path: 'state',
};

/** A command with arguments of its own is another program's; alone it is one of runlock's. */
function describeOperand(argument: Argument, next: Argument | undefined): OperandShape {
  const name = argument.name();
  const command = next ? 'program' : 'command';
  const from = name === 'command' ? command : LIVE_OPERANDS[name];
  return { words: argument.argChoices ?? [], variadic: argument.variadic, ...(from && { from }) };
}

const firstLine = (text: string) => text.split('\n')[0] ?? '';
