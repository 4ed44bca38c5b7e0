/** `runlock doctor`: its options. */
import type { Command } from 'commander';
import { parseFlag, parseNode } from '../options.ts';
import type { DoctorOptions } from '../commands/doctor.ts';
import { configFaultOf, configOf } from './config-file.ts';
import type { Context, Done } from './invocation.ts';
import {
  addOptions,
  commonOptions,
  groupsOption,
  option,
  prefixOption,
  toCommon,
  withEnvironment,
} from './option.ts';
import type { Values } from './option.ts';

export function addDoctor(program: Command, { env }: Context, done: Done): void {
  const command = program
    .command('doctor')
    .description('check Consul, the rights of the token, the clock and this host, and say what to do')
    .allowExcessArguments(false);
  addOptions(command, [
    groupsOption('the group whose rights are tried; can be given several times', 'default'),
    option('--node <name>', "the owner, as for exec (default: the agent's node name)", parseNode),
    option('--json', 'the same as JSON', parseFlag, false),
    prefixOption(),
    ...commonOptions(),
  ]);
  command.addHelpText('after', DOCTOR_HELP);
  command.action(() => {
    const values = withEnvironment(command, env);
    const { prefix, json, group, node } = values as Values & DoctorValues;
    const config = describeConfig(command);
    const options = {
      ...{ prefix, json, groups: [...group].sort() },
      ...(node !== undefined && { node }),
      ...(config && { config }),
    };
    done({ kind: 'doctor', common: toCommon(values), options: Object.freeze(options) });
  });
}

function describeConfig(command: Command): DoctorOptions['config'] {
  const fault = configFaultOf(command);
  if (fault) return { problem: fault.message };
  const config = configOf(command);
  if (!config) return undefined;
  const settings = [config.general, ...config.groups.values()].reduce((n, { size }) => n + size, 0);
  return { path: config.path, settings };
}

const DOCTOR_HELP = `
It changes nothing, and leaves nothing in Consul. A configuration file that is wrong is a problem like any other; the
rest is then checked without it.

Exit codes: 0 all is well (a note is nothing to do); 1 warnings; 2 problems.

Examples:
  runlock doctor
  runlock doctor -g prod/web`;

interface DoctorValues {
  prefix: string;
  json: boolean;
  group: readonly string[];
  node?: string;
}
