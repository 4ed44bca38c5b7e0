/** `runlock forget`: its options. */
import type { Command } from 'commander';
import { parseFlag, parseGroup, usage } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Defining } from '../../cli/command.ts';
import {
  addOptions,
  checked,
  commonOptions,
  groupOfLine,
  groupsOption,
  option,
  prefixOption,
  toCommon,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Platform } from '../platform.ts';
import type { ForgetAsked } from './run.ts';

export const forget = register({
  name: 'forget',
  define,
  run: async (asked: ForgetAsked, platform: Platform) => (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: ForgetAsked) => void): void {
  const command = program
    .command('forget')
    .description('delete everything that an unused group has left in Consul')
    .argument('[group]', 'group to delete; the groups below it stay', checked(parseGroup, 'group'));
  addOptions(command, [
    groupsOption('group to delete, as for exec'),
    option('--force', 'do not ask for confirmation', parseFlag, false),
    option('--json', 'print the result as JSON', parseFlag, false),
    prefixOption(),
    ...commonOptions(),
  ]);
  command.addHelpText('after', FORGET_HELP);
  command.action((named: string | undefined) => {
    const values = withEnvironment(command, env);
    const group = groupOfLine(command, named);
    if (group === undefined) throw usage("missing <group>; see 'runlock forget --help'");
    const { prefix, json, force } = values as Values & { prefix: string; json: boolean; force: boolean };
    done({ common: toCommon(values), options: Object.freeze({ prefix, json, force, group }) });
  });
}

const FORGET_HELP = `
Deletes the records of the group's last runs, which 'runlock history' shows, and all other keys of the group. Refuses
while a run of the group is waiting or running, or a claim or a freeze is in effect. A run that starts at the same
moment is safe. If forget is interrupted, some keys are deleted; run forget again. To delete the record of one node,
use 'runlock history --forget'.

On a terminal, forget asks for confirmation. Without a terminal it needs --force.

Exit codes: 0 deleted, or nothing was stored; 64 wrong usage; 69 Consul unreachable; 74 done, but stdout could not be
written; 75 the group is in use, or --force was not given; 77 Consul denied access; 78 bad configuration.

Examples:
  runlock forget lab/old
  runlock forget lab/old --force`;
