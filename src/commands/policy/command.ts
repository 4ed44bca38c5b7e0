/** `runlock policy`: its options. */
import { Argument } from 'commander';
import type { Command } from 'commander';
import { parseFlag, parseGroupsOrRoot, parseNode, usage } from '../../cli/values.ts';
import { valueIn } from '../../cli/config/apply.ts';
import { register } from '../../cli/command.ts';
import type { Asked, Defining } from '../../cli/command.ts';
import {
  addOptions,
  groupsOption,
  lastOptions,
  onLineAlone,
  option,
  repeatedOption,
  toCommon,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Condition } from '../../conditions/parse.ts';
import { pathFault } from '../../state/path.ts';
import { parseSetting } from '../../state/setting.ts';
import type { Setting } from '../../state/setting.ts';
import { isPrincipal } from '../../jobs/keys.ts';
import { conditionsOption } from '../condition-option.ts';
import { maintenanceOption, serviceOption } from '../gate-flags.ts';
import { tasksDirOption } from '../tasks-dir-option.ts';
import type { Platform } from '../platform.ts';
import type { PolicyGate, PolicyGroup, Role } from './rules.ts';
import type { PolicyOptions } from './run.ts';

/** In the order in which help names them. */
const ROLES: readonly Role[] = ['node', 'agent', 'operator', 'viewer'];

export const policy = register({
  name: 'policy',
  config: { perGroup: ['service', 'maintenance', 'when', 'publish', 'during'] },
  define,
  run: async (asked: Asked<PolicyOptions>, platform: Platform) =>
    (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, defining: Defining, done: (asked: Asked<PolicyOptions>) => void): void {
  const { env } = defining;
  const command = program
    .command('policy')
    .description('print the Consul ACL rules that a role needs')
    .addArgument(new Argument('<role>', 'node, agent, operator or viewer').choices(ROLES));
  addOptions(command, [
    groupsOption('group of the role; / for all groups; repeat for several', 'default', parseGroupsOrRoot),
    option(
      '--node <name>',
      'with node and agent: the name of its Consul agent (default: any node)',
      parseNode,
    ),
    serviceOption('also the rules for the health gate of these services, as for exec'),
    maintenanceOption('also the rules for this maintenance, as for exec'),
    conditionsOption('--when <condition>', 'also the rules for these conditions, as for exec'),
    repeatedOption(
      '--publish <path=value>',
      'also the rules for publishing this state, as for exec; repeat for several',
      parseSetting,
    ),
    repeatedOption(
      '--during <path=value>',
      'also the rules for this state, as for exec; repeat for several',
      parseSetting,
    ),
    repeatedOption('--state <path>', 'also the rules for setting this state; repeat for several', parseState),
    onLineAlone(
      repeatedOption(
        '--principal <name>',
        'with agent: who may ask for its tasks; else: ask for jobs under this name; repeat for several',
        parsePrincipal,
      ),
    ),
    tasksDirOption(),
    option('--commands', 'print the commands that create the policy and a token', parseFlag, false),
    ...lastOptions('print as JSON'),
  ]);
  command.addHelpText('after', POLICY_HELP);
  command.action((role: Role) => {
    const values = withEnvironment(command, env) as Values & PolicyValues;
    const { prefix, json, commands, group, node, state = [], principal = [], tasksDir } = values;
    const given = (name: string) => command.getOptionValueSource(name) === 'cli';
    if (given('node') && role !== 'node' && role !== 'agent')
      throw usage("--node is for 'policy node' and 'policy agent' only");
    if (given('principal') && role === 'node')
      throw usage("--principal is for 'policy agent', 'policy operator' and 'policy viewer' only");
    if (given('tasksDir') && role !== 'agent') throw usage("--tasks-dir is for 'policy agent' only");
    if (role === 'agent' && group.includes(''))
      throw usage('an agent with rights for all groups could ask in the name of everybody; name its groups');
    if (role === 'viewer' && principal.length > 0 && group.includes(''))
      throw usage('no rule is for the jobs of every group; name the groups to ask for jobs in');
    if (json && commands) throw usage('--json and --commands exclude each other');
    // The tasks of an agent have their own groups.
    const named = role === 'agent' && command.getOptionValueSource('group') === 'default' ? [] : group;
    const groups = named.map((each) => groupOf(command, each));
    if (given('maintenance') && !groups.some(({ gate }) => gate))
      throw usage('--maintenance needs --service');
    done({
      common: toCommon(values),
      options: Object.freeze({
        prefix,
        json,
        commands,
        role,
        groups,
        states: state,
        principals: principal,
        ...(role === 'agent' && { tasks: { folder: tasksDir, defining } }),
        ...(node !== undefined && { node }),
      }),
    });
  });
}

/** Of a run in that group, by flag, variable, or its section of the file. */
function groupOf(command: Command, group: string): PolicyGroup {
  const services = valueIn(command, '--service', group) as readonly string[] | undefined;
  const maintenance = valueIn(command, '--maintenance', group) as PolicyGate['maintenance'];
  const when = (valueIn(command, '--when', group) ?? []) as readonly Condition[];
  const gate = services && { services, ...(maintenance !== undefined && { maintenance }) };
  const settings = ['--publish', '--during'].flatMap(
    (flag) => (valueIn(command, flag, group) ?? []) as readonly Setting[],
  );
  return { group, when, published: settings.map(({ path }) => path), ...(gate && { gate }) };
}

function parseState(path: string): string {
  const fault = pathFault(path);
  if (fault !== undefined) throw usage(fault);
  return path;
}

function parsePrincipal(name: string): string {
  if (isPrincipal(name)) return name;
  throw usage("not a principal's name; use letters, digits, '.', '_' and '-', at most 64");
}

const POLICY_HELP = `
Prints what the token needs, from the options, the environment and the configuration file; for an agent, from the task
files of this node too. Does not contact Consul.

  node      runs 'runlock exec' and 'runlock acquire' in the groups
  agent     runs 'runlock agent' with the tasks of --tasks-dir, and their runs
  operator  releases, freezes, thaws and forgets the groups, and looks at them
  viewer    looks at the groups: status, history, monitoring

With --principal, an operator or a viewer may also ask for jobs of the groups under that name.

Rules for a group also cover the groups below it. Without --node, a node's rules are for any node, so that all nodes of the
groups can share one policy; with it, the token can't make sessions for others.

Exit codes: 0; 64 wrong usage; 74 stdout could not be written; 78 bad configuration.

Examples:
  runlock policy node -g prod/web --node web01
  runlock policy node -g prod/web --service web --maintenance
  runlock policy agent --node web01
  runlock policy operator -g prod --principal ops --commands
  runlock policy viewer -g /`;

interface PolicyValues {
  prefix: string;
  json: boolean;
  commands: boolean;
  group: readonly string[];
  node?: string;
  state?: readonly string[];
  principal?: readonly string[];
  tasksDir: string;
}
