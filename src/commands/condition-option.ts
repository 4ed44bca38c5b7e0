/** An option whose value is a condition, and which can be given several times. */
import type { Option } from 'commander';
import { checked, option } from '../cli/option.ts';
import { parseCondition } from '../conditions/parse.ts';
import type { Condition } from '../conditions/parse.ts';

export function conditionsOption(flags: string, description: string): Option {
  const made = option(flags, description, (text) => [parseCondition(text)]);
  const parse = checked(parseCondition, made);
  return made.argParser((text, before: readonly Condition[] | undefined) => [...(before ?? []), parse(text)]);
}
