/** Finds options of a command that stand before its name: `runlock -g prod/web exec …`. */
import type { Command, Option } from 'commander';
import { quote } from '../text/suggested-command.ts';
import { visible } from '../text/visible.ts';

/** One line that says where they belong; undefined: the line names no command that has these options. */
export function sayMisplaced(argv: readonly string[], commands: readonly Command[]): string | undefined {
  const { words, name } = splitAtCommand(argv, commands);
  const [first] = words;
  if (first === undefined) return undefined;
  const flag = flagOf(first);
  const named = commands.find((command) => command.name() === name);
  const candidates = named ? [named] : commands;
  if (words.some((word) => !optionOf(word, candidates))) return undefined;
  if (!named) return `${flag} must come after a command, as in 'runlock exec -g prod/web'`;
  return `${flag} must come after the command: runlock ${named.name()} ${flag} …; see 'runlock ${named.name()} --help'`;
}

/**
 * An option whose value is the next word, where that word looks like another option: its value was left out, and the option
 * behind it would be lost. Undefined: there is none. @param words those after the name of the command.
 */
export function sayLeftOut(words: readonly string[], command: Command): string | undefined {
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? '';
    // What follows belongs to the command that is run.
    if (word === '--' || (!word.startsWith('-') && passesOn(command))) return undefined;
    if (!optionOf(word, [command])?.required || word !== flagOf(word)) continue;
    at += 1;
    const value = words[at] ?? '';
    const long = optionOf(word, [command])?.long ?? word;
    if (/^--./s.test(value))
      return `no value for ${word}: ${quote(visible(value))} begins with '--'; if that is meant as the value, write ${quote(`${long}=${visible(value)}`)}`;
  }
  return undefined;
}

/** Its first argument is a program, and all that follows is that program's. Commander tells it to nobody. */
const passesOn = (command: Command): boolean =>
  (command as unknown as { readonly _passThroughOptions?: boolean })._passThroughOptions === true;

/** Returns the command's name (the first word that is no option or option's value) and the options before it. */
function splitAtCommand(argv: readonly string[], commands: readonly Command[]) {
  const words: string[] = [];
  for (let at = 0; at < argv.length; at += 1) {
    const word = argv[at] ?? '';
    if (!/^-./.test(word) || word === '--') return { words, name: word };
    words.push(word);
    if (optionOf(word, commands)?.required && word === flagOf(word)) at += 1;
  }
  return { words, name: undefined };
}

const optionOf = (word: string, commands: readonly Command[]): Option | undefined =>
  commands.flatMap(({ options }) => options).find(({ short, long }) => [short, long].includes(flagOf(word)));

/** `--group` of `--group=a`, `-g` of `-ga`. */
const flagOf = (word: string) => (word.startsWith('--') ? word.replace(/=.*$/s, '') : word.slice(0, 2));
