/** `runlock __complete`: the words so far → candidates for the last word. Pure, except for short requests to Consul. */
import {
  findAgents,
  findAskable,
  findGroups,
  findJobs,
  findOwners,
  findRecorded,
  findStates,
  isGroup,
  withinLimit,
} from './live.ts';
import type { Candidate, LiveDeps, Where } from './live.ts';

/** A command of runlock, as completion sees it; made from the command tree. */
export interface CommandShape {
  readonly name: string;
  readonly about: string;
  readonly options: readonly OptionShape[];
  readonly operands: readonly OperandShape[];
}

export interface OptionShape {
  /** `-g`, `--group`. */
  readonly flags: readonly string[];
  readonly about: string;
  /** Undefined: it takes no value. */
  readonly value?: ValueShape;
}

export interface OperandShape extends ValueShape {
  /** Takes all remaining words. */
  readonly variadic: boolean;
}

/**
 * What a value can be: fixed words, or names that are looked up. `agent`: nodes with an agent; `askable`: tasks of these;
 * `job`: the same for `job start`, else jobs.
 */
export interface ValueShape {
  readonly words: readonly string[];
  /** `program`: another program's command line; `command`: a command of runlock. */
  readonly from?:
    | 'group'
    | 'state'
    | 'condition'
    | 'owner'
    | 'recorded'
    | 'agent'
    | 'askable'
    | 'job'
    | 'file'
    | 'program'
    | 'command';
}

export interface CompleteOptions {
  /** All words after `runlock`; the user is typing the last one, which may be empty. */
  readonly words: readonly string[];
  readonly commands: readonly CommandShape[];
  /** Options that come before any command. */
  readonly options: readonly OptionShape[];
  /** Prefix and groups to use if the words name none. */
  readonly prefix: string;
  readonly groups: readonly string[];
}

export type Completion =
  | { readonly kind: 'candidates'; readonly candidates: readonly Candidate[] }
  | { readonly kind: 'files' }
  /** The word with this number (from 0) starts another program's command line, which the shell completes. */
  | { readonly kind: 'program'; readonly at: number };

/** On an error there are no candidates, and no message. */
export async function complete(deps: LiveDeps, options: CompleteOptions): Promise<Completion> {
  const words = options.words.slice(0, -1);
  const current = options.words.at(-1) ?? '';
  const [name] = words;
  const command = options.commands.find((each) => each.name === name);
  if (name === undefined) {
    const flags = current.startsWith('-') ? flagsOf(options.options) : [];
    return only(current, [...asCandidates(options.commands), ...flags]);
  }
  if (!command) return only(current, []);
  const place = findPlace(command, words.slice(1));
  if (place.programAt !== undefined) return { kind: 'program', at: place.programAt + 1 };
  const [flag, typed] = splitFlag(current, place);
  const value = flag === undefined ? place.awaits : findOption(command, flag)?.value;
  if (flag === undefined && !value && !place.literal && current.startsWith('-'))
    return only(current, [...flagsOf(command.options), ...separator(command)]);
  const wanted = flag === undefined ? (value ?? operandAt(command, place.operands.length)) : value;
  if (!wanted) return only(current, []);
  if (wanted.from === 'file') return { kind: 'files' };
  if (wanted.from === 'program') return { kind: 'program', at: words.length };
  if (wanted.from === 'state' && !takesPath(place.operands)) return only(current, []);
  const isOperand = flag === undefined && !value;
  const meant = wanted.from === 'job' && isOperand ? ofJob(wanted, place.operands) : wanted;
  const found = await candidatesFor(deps, meant, { ...options, ...chosen(place, options), typed });
  const lead = flag === undefined ? '' : `${flag}=`;
  return only(
    `${lead}${typed}`,
    found.map((each) => ({ ...each, value: `${lead}${each.value}` })),
  );
}

function only(start: string, candidates: readonly Candidate[]): Completion {
  return { kind: 'candidates', candidates: candidates.filter(({ value }) => value.startsWith(start)) };
}

const asCandidates = (commands: readonly CommandShape[]): Candidate[] =>
  commands.map(({ name, about }) => ({ value: name, about }));

/** The parser's state after the words so far. */
interface Place {
  readonly operands: readonly string[];
  /** Values given so far, by long flag. */
  readonly values: ReadonlyMap<string, readonly string[]>;
  /** The value that the last option still needs. */
  readonly awaits: ValueShape | undefined;
  /** After `--`, all words are operands. */
  readonly literal: boolean;
  /** Number of the word that started another program's command line. */
  readonly programAt: number | undefined;
}

function findPlace(command: CommandShape, words: readonly string[]): Place {
  const operands: string[] = [];
  const values = new Map<string, string[]>();
  let awaiting: OptionShape | undefined;
  let literal = false;
  let programAt: number | undefined;
  const note = ({ flags }: OptionShape, value: string) => {
    const long = flags.at(-1) ?? '';
    values.set(long, [...(values.get(long) ?? []), value]);
  };
  for (const [i, word] of words.entries()) {
    if (awaiting) {
      note(awaiting, word);
      awaiting = undefined;
    } else if (word === '--' && !literal) {
      literal = true;
      if (operandAt(command, operands.length)?.from === 'program') programAt = i + 1;
    } else if (!literal && word.startsWith('-') && word !== '-') {
      const { option, attached } = readFlag(command, word);
      if (option && attached !== undefined) note(option, attached);
      else awaiting = option;
    } else {
      if (operandAt(command, operands.length)?.from === 'program') programAt = i;
      operands.push(word);
    }
    if (programAt !== undefined) break;
  }
  return { operands, values, awaits: awaiting?.value, literal, programAt };
}

/** The option in this word that takes a value, and the value if it is attached: `--group=a`, `-ga`, `-vg`. */
function readFlag(command: CommandShape, word: string): { option?: OptionShape; attached?: string } {
  if (word.startsWith('--')) {
    const [flag = '', ...rest] = word.split('=');
    const option = findOption(command, flag);
    if (!option?.value) return {};
    return { option, ...(rest.length > 0 && { attached: rest.join('=') }) };
  }
  for (let i = 1; i < word.length; i += 1) {
    const option = findOption(command, `-${word.charAt(i)}`);
    if (!option?.value) continue;
    return { option, ...(i + 1 < word.length && { attached: word.slice(i + 1) }) };
  }
  return {};
}

const findOption = ({ options }: CommandShape, flag: string) =>
  options.find(({ flags }) => flags.includes(flag));

/** Splits `--hold=fo` into the flag and the start of its value. */
function splitFlag(current: string, { awaits, literal }: Place): [flag: string | undefined, typed: string] {
  const [, flag, typed = ''] = /^(--[^=]+)=(.*)$/s.exec(current) ?? [];
  return awaits || literal || flag === undefined ? [undefined, current] : [flag, typed];
}

const flagsOf = (options: readonly OptionShape[]): Candidate[] =>
  options.flatMap(({ flags, about }) => flags.map((value) => ({ value, about })));

const separator = ({ operands }: CommandShape): Candidate[] =>
  operands.some(({ from }) => from === 'program') ? [{ value: '--', about: 'end of options' }] : [];

function operandAt({ operands }: CommandShape, i: number): OperandShape | undefined {
  const last = operands.at(-1);
  return operands[i] ?? (last?.variadic ? last : undefined);
}

/** Prefix and groups from the words, else from the environment or the default. */
function chosen({ values, operands }: Place, { prefix, groups }: CompleteOptions): Omit<Where, 'typed'> {
  const named = [...operands, ...(values.get('--group') ?? [])].filter(isGroup);
  const under = values.get('--prefix')?.at(-1) ?? prefix;
  return { prefix: isGroup(under) ? under : prefix, groups: named.length > 0 ? named : groups };
}

const LOOKS = {
  group: findGroups,
  owner: findOwners,
  recorded: findRecorded,
  state: findStates,
  agent: findAgents,
  askable: findAskable,
  job: findJobs,
};

async function candidatesFor(
  deps: LiveDeps,
  { words, from }: ValueShape,
  where: Where & Pick<CompleteOptions, 'commands'>,
): Promise<Candidate[]> {
  const fixed = words.map((value) => ({ value, about: '' }));
  if (from === 'command') return asCandidates(where.commands);
  if (from === undefined || from === 'file' || from === 'program') return fixed;
  const [lead, look, typed] =
    from === 'condition' ? inCondition(where.typed) : ['', LOOKS[from], where.typed];
  if (!look) return fixed;
  const found = await withinLimit(deps, (consul, signal) => look(consul, { ...where, typed }, signal));
  const led = found.map((each) => ({ ...each, value: `${lead}${each.value}` }));
  return [...fixed, ...led.sort((a, b) => (a.value < b.value ? -1 : 1))];
}

type Look = (typeof LOOKS)[keyof typeof LOOKS];

const IN_CONDITIONS: Readonly<Record<string, Look>> = {
  state: findStates,
  idle: findGroups,
  blocked: findGroups,
  frozen: findGroups,
  agent: findAgents,
};

/** The condition up to the name that is being typed, what can be looked up there, and the start of the name. */
function inCondition(text: string): readonly [lead: string, look: Look | undefined, typed: string] {
  const [, lead = '', kind = '', typed = ''] = /^((?:not:)?(\w+):)(.*)$/s.exec(text) ?? [];
  return [lead, IN_CONDITIONS[kind], typed];
}

/** `operands`: those before the word that is being typed, first what to do. */
function takesPath([action, ...paths]: readonly string[]): boolean {
  if (action === 'prune') return false;
  return action === 'watch' || paths.length === 0;
}

/** The name that an action of `job` takes. */
function ofJob(wanted: ValueShape, [action]: readonly string[]): ValueShape {
  if (action === 'start') return { ...wanted, from: 'askable' };
  return action === 'list' ? { words: [] } : wanted;
}
