/** This node's tasks → text. */
import { formatAge } from '../text/age.ts';
import { quote } from '../text/suggested-command.ts';
import { visible } from '../text/visible.ts';
import { renderTable } from './table.ts';
import type { TableOptions } from './table.ts';
import { wrapLines } from '../text/wrap.ts';

/** A task, as `--json` has it. */
export interface TaskView {
  readonly name: string;
  readonly file: string;
  readonly description?: string;
  readonly command: readonly string[];
  readonly params: readonly {
    readonly name: string;
    readonly match: string;
    readonly default?: string;
    readonly description?: string;
    /** A value may begin a word with '-'. */
    readonly dash?: boolean;
  }[];
  readonly user?: string;
  readonly cwd?: string;
  /** The task's own variables. */
  readonly env: Readonly<Record<string, string>>;
  /** Principals who may ask for it. */
  readonly allow: readonly string[];
  readonly trigger?: {
    readonly on: readonly string[];
    readonly debounceMs: number;
    readonly minIntervalMs: number;
    readonly maxAgeMs?: number;
    readonly onFirst: 'run' | 'skip';
    readonly perHour: number;
  };
  /** The command of a job that only tries. */
  readonly noop?: readonly string[];
  /** The end of its output may be shown to who watches a job. */
  readonly tail: boolean;
  /** What the file says of the options of `exec`, as flags would give it. */
  readonly options: Readonly<Record<string, string>>;
}

export interface TasksView {
  readonly folder: string;
  /** There is no such folder. */
  readonly missing?: true;
  readonly tasks: readonly TaskView[];
  /** Why other files there are no tasks. */
  readonly faults: readonly string[];
}

interface TasksOptions extends TableOptions {
  /** Width at which to break sentences; undefined: not at all. */
  readonly sentenceColumns?: number | undefined;
}

export function renderTasks({ folder, missing, tasks, faults }: TasksView, options: TasksOptions): string {
  const wrap = (text: string) => wrapLines(visible(text), options.sentenceColumns, { hang: 2 });
  const head = ['TASK', 'GROUP', 'DESCRIPTION'];
  const rows = tasks.map(({ name, description = '', options: { group = 'default' } }) => ({
    cells: [name, group, description],
  }));
  const none = missing
    ? `no tasks: there is no folder ${folder}; make it, or name another with --tasks-dir`
    : `no tasks in ${folder}; a file NAME.toml there defines one ('runlock task --help')`;
  const list = rows.length > 0 ? renderTable(head, rows, options) : wrap(none);
  const shown = rows.length === 0 && faults.length > 0 ? [] : list;
  return `${[...shown, ...faults.flatMap((fault) => wrap(`skipped ${fault}`))].join('\n')}\n`;
}

/** Where the values of a task begin. */
const VALUE_COLUMN = 13;

/** @param sentenceColumns width at which to break long values; undefined: not at all. */
export function renderTask(task: TaskView, sentenceColumns?: number): string {
  const { name, file, description, command, params, user, cwd, env, allow, trigger, noop, tail, options } =
    task;
  const rows: [string, string][] = [
    ['task', name],
    ['file', file],
    ...optional('description', description),
    ['command', command.map(quote).join(' ')],
    ...optional('noop', noop?.map(quote).join(' ')),
    ...params.map((each): [string, string] => ['parameter', parameterText(each)]),
    ...(allow.length > 0 ? [['allow', allow.join(', ')] satisfies [string, string]] : []),
    ...(tail ? [] : [['tail', 'output is not shown to others'] satisfies [string, string]]),
    ...(trigger?.on ?? []).map((condition): [string, string] => ['on', condition]),
    ...optional('starts', trigger && startsText(trigger)),
    ...optional('user', user),
    ...optional('cwd', cwd),
    ...Object.entries(env).map(([variable, value]): [string, string] => ['variable', `${variable}=${value}`]),
    ...Object.entries(options).map(([key, value]): [string, string] => ['option', `${key} = ${value}`]),
  ];
  return rows
    .flatMap(([key, value]) => {
      const lead = `${key}:`.padEnd(VALUE_COLUMN);
      return wrapLines(visible(value), sentenceColumns, { lead, hang: VALUE_COLUMN });
    })
    .map((line) => `${line}\n`)
    .join('');
}

const optional = (key: string, value: string | undefined): [string, string][] =>
  value === undefined ? [] : [[key, value]];

/** How often, and when, the trigger starts it. */
function startsText({
  on,
  debounceMs,
  minIntervalMs,
  maxAgeMs,
  onFirst,
  perHour,
}: NonNullable<TaskView['trigger']>): string {
  return [
    `at most ${perHour} an hour`,
    ...(debounceMs > 0 ? [`${formatAge(debounceMs)} after the last change`] : []),
    ...(minIntervalMs > 0 ? [`at least ${formatAge(minIntervalMs)} apart`] : []),
    ...(maxAgeMs === undefined ? [] : [`when the last good run is older than ${formatAge(maxAgeMs)}`]),
    ...(on.length > 0 && onFirst === 'skip' ? ['not for what is true at the first look'] : []),
  ].join('; ');
}

function parameterText({
  name,
  match,
  default: fallback,
  description,
  dash,
}: TaskView['params'][number]): string {
  const needed = fallback === undefined ? 'must be given' : `default '${fallback}'`;
  const dashed = dash ? ", may begin with '-'" : '';
  return [
    `${name}, matching ${match}, ${needed}${dashed}`,
    ...(description === undefined ? [] : [description]),
  ].join(': ');
}
