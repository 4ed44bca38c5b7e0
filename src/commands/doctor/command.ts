/** `runlock doctor`: its options. */
import type { Command } from 'commander';
import { parseNode, usage } from '../../cli/values.ts';
import type { DoctorOptions } from './doctor.ts';
import type { DoctorGate } from './gate-rights.ts';
import { configFaultOf, configOf, valueIn } from '../../cli/config/apply.ts';
import type { Condition } from '../../conditions/parse.ts';
import { conditionsOption } from '../condition-option.ts';
import { tasksDirOption } from '../tasks-dir-option.ts';
import { agentOption, maintenanceOption, serviceOption } from '../gate-flags.ts';
import { register } from '../../cli/command.ts';
import type { Defining } from '../../cli/command.ts';
import {
  addOptions,
  groupsOption,
  lastOptions,
  option,
  repeatedOption,
  toCommon,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import { parseSetting } from '../../state/setting.ts';
import type { Setting } from '../../state/setting.ts';
import type { Platform } from '../platform.ts';
import type { DoctorAsked } from './run.ts';

const PUBLISHING = ['--publish', '--during'] as const;

export const doctor = register({
  name: 'doctor',
  // The groups are checked one by one, so each uses its own section of the file.
  config: { wrong: 'report', perGroup: ['service', 'maintenance', 'when', 'publish', 'during'] },
  define,
  run: async (asked: DoctorAsked, platform: Platform) => (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, defining: Defining, done: (asked: DoctorAsked) => void): void {
  const { env } = defining;
  const command = program
    .command('doctor')
    .description('check Consul, the token, the clock and this host, and suggest fixes')
    .allowExcessArguments(false);
  addOptions(command, [
    groupsOption('check the rights for this group; repeat for several groups', 'default'),
    option('--node <name>', "node name, as for exec (default: the agent's node)", parseNode),
    serviceOption('also check the rights for the health gate of these services, as for exec'),
    maintenanceOption('also check the rights for this maintenance, as for exec'),
    conditionsOption('--when <condition>', 'also check the rights for these conditions, as for exec'),
    ...PUBLISHING.map((flag) =>
      repeatedOption(
        `${flag} <path=value>`,
        'also check the rights for these states, as for exec',
        parseSetting,
      ),
    ),
    agentOption(),
    tasksDirOption(),
    ...lastOptions('print as JSON'),
  ]);
  command.addHelpText('after', DOCTOR_HELP);
  command.action(() => {
    const values = withEnvironment(command, env);
    const { prefix, json, group, node, agent, tasksDir } = values as Values & DoctorValues;
    const isGroupNamed = command.getOptionValueSource('group') !== 'default';
    const requests = env['RUNLOCK_REQUESTS'] ?? configOf(command)?.general.get('requests')?.text;
    const config = describeConfig(command);
    const options = {
      prefix,
      json,
      groups: [...group].sort(),
      gates: gatesOf(command, group),
      states: statesOf(command, group),
      from: { folder: tasksDir, defining, isGroupNamed },
      ...(requests === 'trust-everybody' && { requests: 'trust-everybody' as const }),
      ...(node !== undefined && { node }),
      ...(agent !== undefined && { agent }),
      ...(config && { config }),
    };
    done({ common: toCommon(values), options: Object.freeze(options) });
  });
}

/** The gate options of each group's runs, from flag, variable or the group's section of the file. */
function gatesOf(command: Command, groups: readonly string[]): DoctorOptions['gates'] {
  const isFlag = (name: string) => command.getOptionValueSource(name) === 'cli';
  const gates = groups.flatMap((group) => {
    const services = valueIn(command, '--service', group) as readonly string[] | undefined;
    const maintenance = valueIn(command, '--maintenance', group) as DoctorGate['maintenance'];
    return services === undefined ? [] : [{ services, ...(maintenance !== undefined && { maintenance }) }];
  });
  if (gates.length === 0 && isFlag('maintenance')) throw usage('--maintenance needs --service');
  if (isFlag('agent') && command.getOptionValue('node') === undefined)
    throw usage('--agent is the agent of another node; name that node with --node');
  return gates;
}

/** What the runs of each group wait for, and what they publish. */
function statesOf(command: Command, groups: readonly string[]): DoctorOptions['states'] {
  return groups.flatMap((group) => {
    const when = (valueIn(command, '--when', group) ?? []) as readonly Condition[];
    const published = PUBLISHING.flatMap(
      (flag) => (valueIn(command, flag, group) ?? []) as readonly Setting[],
    );
    if (when.length + published.length === 0) return [];
    return [{ group, when, published: published.map(({ path }) => path) }];
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
Changes nothing, and leaves nothing in Consul. If the configuration file or --service names services, doctor also checks
the rights for their health gate; with conditions or states (--when, --publish, --during), the rights for those. An invalid configuration file is reported as a problem; the other checks then run
without the file. Each task file of this node is read, and its program and user tried; tasks that others may ask for, or that
start by themselves, add the rights of the agent, whom it can trust, and tasks that start each other.

Exit codes: 0 no problems (there may be notes); 1 warnings; 2 problems.

Examples:
  runlock doctor
  runlock doctor -g prod/web
  runlock doctor -g prod/web --service web --maintenance`;

interface DoctorValues {
  prefix: string;
  json: boolean;
  group: readonly string[];
  node?: string;
  agent?: string;
  tasksDir: string;
}
