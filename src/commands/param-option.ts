/** `--param`: of `task run` and of `job start`. */
import type { Option } from 'commander';
import { onLineAlone, option } from '../cli/option.ts';
import { usage } from '../cli/values.ts';

/** Only the command line says it: in the environment it would be a parameter of every task. */
export function paramOption(description: string): Option {
  const made = onLineAlone(option('--param <name=value>', description, parseParam));
  return made.argParser((text, before: ReadonlyMap<string, string> | undefined) => {
    const [name, value] = parseParam(text);
    if (before?.has(name)) throw usage(`--param ${name} is given twice; leave one out`);
    return new Map([...(before ?? []), [name, value]]);
  });
}

function parseParam(text: string): readonly [string, string] {
  const [, name, value] = /^([^=]+)=([^]*)$/.exec(text) ?? [];
  if (name === undefined || value === undefined)
    throw usage(`--param '${text}': write NAME=VALUE, as in --param recipe=app`);
  return [name, value];
}
