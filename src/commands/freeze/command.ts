/** `runlock freeze`: its options. */
import type { Command } from 'commander';
import { parseGroupOrRoot, parseGroupsOrRoot, parsePositiveDuration, usage } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Defining } from '../../cli/command.ts';
import {
  addOptions,
  checked,
  groupOfLine,
  groupsOption,
  lastOptions,
  option,
  toCommon,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Platform } from '../platform.ts';
import { parseReason } from '../reason.ts';
import type { FreezeAsked } from './run.ts';

export const freeze = register({
  name: 'freeze',
  define,
  run: async (asked: FreezeAsked, platform: Platform) => (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: FreezeAsked) => void): void {
  const command = program
    .command('freeze')
    .description('stop new runs in a group and the groups below it; active runs finish')
    .argument('[group]', 'group to freeze; / for every group', checked(parseGroupOrRoot, 'group'));
  addOptions(command, [
    groupsOption('group to freeze, as for exec', undefined, parseGroupsOrRoot),
    option('--reason <text>', 'reason (required, one line)', parseReason),
    option('--for <duration>', 'how long (default: until thawed)', parsePositiveDuration),
    ...lastOptions('print the result as JSON'),
  ]);
  command.addHelpText('after', FREEZE_HELP);
  command.action((named: string | undefined) => {
    const values = withEnvironment(command, env);
    const at = groupOfLine(command, named);
    if (at === undefined) throw usage("missing <group>; see 'runlock freeze --help'");
    const { prefix, json, reason, for: forMs } = values as Values & FreezeValues;
    if (reason === undefined) throw usage("--reason is required; see 'runlock freeze --help'");
    const options = { prefix, at, reason, json, ...(forMs !== undefined && { forMs }) };
    done({ common: toCommon(values), options: Object.freeze(options) });
  });
}

const FREEZE_HELP = `
Waiting runs keep their places in the queue. A new freeze replaces an earlier one of the same group.

Examples:
  runlock freeze prod/web --reason 'release day' --for 8h
  runlock freeze / --reason 'storage is being moved'
  runlock thaw prod/web`;

interface FreezeValues {
  prefix: string;
  json: boolean;
  reason?: string;
  for?: number;
}
