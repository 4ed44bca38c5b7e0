/** `--param`: of `task run` and of `job start`; and others of its kind. */
import type { Option } from 'commander';
import { onLineAlone, option } from '../cli/option.ts';
import { usage } from '../cli/values.ts';

/** Only the command line says it: in the environment it would be a parameter of every task. */
export const paramOption = (description: string): Option =>
  onLineAlone(namedOption('--param <name=value>', description, 'recipe=app'));

/** Names with values, each once. @param example of one. */
export function namedOption(flags: string, description: string, example: string): Option {
  const [flag = ''] = flags.split(' ');
  const parse = (text: string): readonly [string, string] => {
    const [, name, value] = /^([^=]+)=([^]*)$/.exec(text) ?? [];
    if (name !== undefined && value !== undefined) return [name, value];
    throw usage(`${flag} '${text}': write ${wordOf(flags)}, as in ${flag} ${example}`);
  };
  const made = option(flags, description, parse);
  return made.argParser((text, before: ReadonlyMap<string, string> | undefined) => {
    const [name, value] = parse(text);
    if (before?.has(name)) throw usage(`${flag} ${name} is given twice; leave one out`);
    return new Map([...(before ?? []), [name, value]]);
  });
}

/** `--param <name=value>` → `NAME=VALUE` */
const wordOf = (flags: string) => (/<(.*)>/.exec(flags)?.[1] ?? '').toUpperCase();
