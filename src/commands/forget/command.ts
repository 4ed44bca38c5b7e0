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
    .description('remove what a group that nobody uses any more has left in Consul')
    .argument('[group]', 'the group; those below it stay', checked(parseGroup, 'group'));
  addOptions(command, [
    groupsOption('the same, as for exec'),
    option('--force', 'do not ask', parseFlag, false),
    option('--json', 'what was done, as JSON', parseFlag, false),
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
The records of its nodes' last runs go, which 'runlock history' shows, and with them its other keys. It is refused while
anything is held, waiting, claimed or frozen in the group itself; a run that starts at the same moment is never harmed.
It can be repeated: a forget that was cut short has removed some of what it was to remove. To forget one node,
use 'runlock history --forget'.

On a terminal it asks first. Elsewhere that takes --force.

Exit codes: 0 forgotten, or nothing was stored; 64 wrong usage; 69 Consul not reachable; 74 done, but stdout could not be
written; 75 the group is in use, or --force was not given; 77 Consul refused; 78 bad configuration.

Examples:
  runlock forget lab/old
  runlock forget lab/old --force`;
