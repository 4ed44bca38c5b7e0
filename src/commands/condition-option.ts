/** An option whose value is a condition, and which can be given several times. */
import type { Option } from 'commander';
import { repeatedOption } from '../cli/option.ts';
import { parseCondition } from '../conditions/parse.ts';

export const conditionsOption = (flags: string, description: string): Option =>
  repeatedOption(flags, description, parseCondition);
