// The man page, in the macros of man(7).
import { exitCodes } from './exit-codes.ts';
import { glossary } from '../../src/text/glossary.ts';
import {
  configuration,
  configurationSample,
  environment,
  files,
  introduction,
  rights,
  seeAlso,
} from './man-texts.ts';
import type { CommandPage, Pages, Term } from './pages.ts';
import { gatePolicy, leastRights, stateRights } from './rights.ts';

export function manPage(pages: Pages, version: string): string {
  const lines = [
    '.\\" Made from the command tree by npm run docs.',
    `.TH RUNLOCK 1 "" "runlock ${version}" "User Commands"`,
    '.SH NAME',
    `runlock \\- ${escape(lowerFirst(pages.about).replace(/\.$/, ''))}`,
    '.SH SYNOPSIS',
    ...pages.commands.flatMap(({ usage }, i) => [...(i === 0 ? [] : ['.br']), synopsis(usage)]),
    '.SH DESCRIPTION',
    ...paragraphs(introduction),
    '.SH GLOSSARY',
    ...glossary.flatMap(([word, meaning]) => item(word, sentence(meaning))),
    '.SH COMMANDS',
    ...pages.commands.flatMap(command),
    '.SS Options of every command',
    ...pages.shared.flatMap(term),
    '.SH CONFIGURATION FILE',
    ...paragraphs(configuration),
    ...indented(configurationSample),
    '.SH RIGHTS',
    ...[escape(rights.least), ...indented(leastRights), '.PP', escape(rights.freeze)],
    ...['.PP', escape(rights.gate), ...indented(gatePolicy())],
    ...[
      '.PP',
      escape(rights.states),
      ...stateRights.flatMap(([what, rules]) => item(what.join(', '), rules.join(', '))),
    ],
    ...['.PP', escape(rights.others)],
    '.SH EXIT STATUS',
    ...exitCodes.flatMap(({ code, meaning }) => item(code, plain(meaning))),
    ...['.PP', 'Where a command has codes of its own, its description says so.'],
    '.SH ENVIRONMENT',
    ...environment.flatMap(([names, meaning]) => item(names, meaning)),
    '.SH FILES',
    ...files.flatMap(([name, meaning]) => item(name, meaning)),
    '.SH EXAMPLES',
    ...literal([...pages.examples, ...pages.commands.flatMap(({ examples }) => examples)].filter(isFirst)),
    '.SH SEE ALSO',
    escape(seeAlso),
  ];
  return `${lines.join('\n')}\n`;
}

function command({ name, usage, about, operands, options, notes }: CommandPage): string[] {
  return [
    `.SS ${escape(name)}`,
    synopsis(usage),
    '.PP',
    escape(sentence(about)),
    ...operands.flatMap(term),
    ...options.flatMap(term),
    ...notes.flatMap(note),
  ];
}

function synopsis(usage: string): string {
  const [, name = '', rest = ''] = /^(runlock [\w-]+)(.*)$/.exec(usage) ?? [];
  return `\\fB${escape(name)}\\fR${escape(rest)}`;
}

const term = ({ term: name, about, fallback }: Term) =>
  item(name, sentence(about, fallback === '' ? '' : ` (default: ${fallback})`));

const item = (name: string, text: string) => ['.TP', `\\fB${escape(name)}\\fR`, escape(text)];

/** Lines that are indented stand as they are. */
function note(lines: readonly string[]): string[] {
  const out = ['.PP'];
  for (const [i, line] of lines.entries()) {
    const indented = line.startsWith(' ');
    const before = lines[i - 1]?.startsWith(' ') ?? false;
    if (indented && !before) out.push('.RS 4', '.nf');
    if (!indented && before) out.push('.fi', '.RE', '.PP');
    out.push(escape(indented ? line.slice(2) : line));
  }
  if (lines.at(-1)?.startsWith(' ')) out.push('.fi', '.RE');
  return out;
}

const paragraphs = (texts: readonly string[]) =>
  texts.flatMap((text, i) => [...(i === 0 ? [] : ['.PP']), escape(text)]);

/** Lines as they are typed, below a text. */
const indented = (lines: readonly string[]) => ['.PP', '.RS 4', ...literal(lines), '.RE'];

const literal = (lines: readonly string[]) => ['.nf', ...lines.map(escape), '.fi'];

const isFirst = (line: string, i: number, all: readonly string[]) => all.indexOf(line) === i;

/** Text as roff prints it: nothing in it is an instruction. */
function escape(text: string): string {
  const named: Readonly<Record<string, string>> = {
    '\\': '\\e',
    '-': '\\-',
    "'": '\\(aq',
    '`': '\\(ga',
    '^': '\\(ha',
    '~': '\\(ti',
  };
  return text
    .replaceAll(/[\\\-'`^~]/g, (char) => named[char] ?? char)
    .replaceAll(/[^\n -~]/gu, (char) => `\\[u${hex(char)}]`)
    .replaceAll(/^(?=[.'])/gm, '\\&');
}

const hex = (char: string) => (char.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0');

const plain = (markdown: string) => markdown.replaceAll('`', '');

const lowerFirst = (text: string) => text.charAt(0).toLowerCase() + text.slice(1);

const sentence = (text: string, more = '') => `${text.charAt(0).toUpperCase()}${text.slice(1)}${more}.`;
