/** `runlock task`: its options. */
import { Argument } from 'commander';
import type { Command } from 'commander';
import { parseFlag, parseNode, parsePath, usage } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Asked, Defining } from '../../cli/command.ts';
import {
  addOptions,
  commonOptions,
  onLineAlone,
  option,
  prefixOption,
  toCommon,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import { TASK_NAMES, isTaskName } from '../../agent/task/definition.ts';
import { paramOption } from '../param-option.ts';
import type { Platform } from '../platform.ts';
import { tasksDirOption } from '../tasks-dir-option.ts';
import { jobOf, jobOptions } from './job-option.ts';
import type { JobValues } from './job-option.ts';
import type { TaskOptions, TaskRequest } from './run.ts';

const ACTIONS = ['list', 'show', 'run'] as const;
type Action = (typeof ACTIONS)[number];

export const task = register({
  name: 'task',
  config: { trusted: 'always' },
  define,
  run: async (asked: Asked<TaskOptions>, platform: Platform) =>
    (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, defining: Defining, done: (asked: Asked<TaskOptions>) => void): void {
  const command = program
    .command('task')
    .description("list, show and run this node's tasks: commands that files of this node define under a name")
    .addArgument(new Argument('<action>', 'list, show or run').choices(ACTIONS))
    .argument('[name]', 'name of the task: the name of its file without .toml');
  addOptions(command, [
    paramOption('with run: a parameter of the task; repeat for several'),
    // In the environment and the file it names the node that this host runs as.
    onLineAlone(option('--node <name>', 'with list: the tasks of this node, as its agent says', parseNode)),
    option('--dry-run', 'with run: print what would happen, run nothing', parseFlag, false),
    // Given by the node's agent alone.
    onLineAlone(option('--triggered', 'with run: a change asks for it', parseFlag, false)).hideHelp(),
    ...jobOptions(),
    onLineAlone(option('--log-file <file>', "with run: file for the command's output", parsePath)).hideHelp(),
    tasksDirOption(),
    option('--json', 'with list and show: print as JSON', parseFlag, false),
    prefixOption(),
    ...commonOptions(),
  ]);
  command.addHelpText('after', TASK_HELP);
  command.action((action: Action, name: string | undefined) => {
    const values = withEnvironment(command, defining.env) as Values & TaskValues;
    const given = (option: string) => command.getOptionValueSource(option) === 'cli';
    const { json, prefix, tasksDir } = values;
    if (given('prefix') && values.node === undefined) throw usage('--prefix needs --node');
    const options: TaskOptions = {
      json,
      prefix,
      folder: tasksDir,
      defining,
      ...requestOf(action, name, { values, given }),
    };
    done({ common: toCommon(values), options: Object.freeze(options) });
  });
}

interface Line {
  readonly values: TaskValues;
  readonly given: (option: string) => boolean;
}

function requestOf(action: Action, name: string | undefined, { values, given }: Line): TaskRequest {
  const { param = new Map<string, string>(), node, triggered } = values;
  if (node !== undefined && action !== 'list') throw usage("--node is for 'task list' only");
  if (action !== 'run') {
    if (param.size > 0) throw usage("--param is for 'task run' only");
    if (given('dryRun')) throw usage("--dry-run is for 'task run' only");
    if (triggered) throw usage("--triggered is for 'task run' only");
    if (given('logFile')) throw usage("--log-file is for 'task run' only");
    if (given('job')) throw usage("--job is for 'task run' only");
  }
  if (action === 'list') {
    if (name !== undefined) throw usage(`task list takes no name; see 'runlock task show ${name}'`);
    if (node !== undefined && given('tasksDir')) throw usage('--node and --tasks-dir exclude each other');
    return { action, ...(node !== undefined && { node }) };
  }
  if (name === undefined)
    throw usage(`task ${action} takes the name of a task; 'runlock task list' lists them`);
  if (!isTaskName(name)) throw usage(`'${name}' is not a task's name; it has ${TASK_NAMES}`);
  if (action === 'show') return { action, name };
  if (given('json')) throw usage("--json is for 'task list' and 'task show' only");
  const job = jobOf(values, given('dryRun'));
  return { action, name, params: param, triggered, flags: flagsOf({ values, given }), ...(job && { job }) };
}

/** What the run is told as well. */
function flagsOf({
  values: { dryRun, verbose, quiet, logFormat, logFile, config },
  given,
}: Line): readonly string[] {
  return [
    ...(dryRun ? ['--dry-run'] : []),
    ...(verbose ? ['--verbose'] : []),
    ...(quiet ? ['--quiet'] : []),
    ...(given('logFormat') ? ['--log-format', logFormat] : []),
    ...(logFile === undefined ? [] : ['--log-file', logFile]),
    ...(given('config') ? ['--config', config] : []),
  ];
}

const TASK_HELP = `
A task is a command that a file of this node defines under a name, with the options of 'runlock exec' that it runs with. The
file /etc/runlock/tasks.d/chef.toml defines the task chef (options of exec have their long names, with underscores):

  command = ["/usr/bin/chef-client", "-o", "recipe[{recipe}]"]
  params.recipe = { match = "[a-z_:]+", default = "app" }
  description = "converge this node"
  group = "prod/web"              # and any other option of exec
  timeout = "1h"
  user = "root"                   # also env.NAME = "value", and cwd
  allow = ["ops"]                 # who may ask for it from afar
  on = ["state:web/backends"]     # what starts it by itself

  list        list the tasks of this node; with --node those of another, as its agent says
  show NAME   show a task: its command, parameters and options
  run NAME    run it here and now, as 'runlock exec' would; this is what to put into a crontab

The program is named by its full path. A parameter is given with --param; its whole value must match the regular expression
of the task's file, and becomes part of one word of the command, never of a shell's line. The command gets a fresh
environment: PATH, HOME, USER, LOGNAME, SHELL, LANG, the task's own variables, and those that runlock sets. Files, folders and
programs that users other than root (or the user who runs this) can write are refused.

Exit codes: those of 'runlock exec'; list and show: 0; 64 wrong usage, or a parameter that the task does not allow; 78 no such
task, or a task file that is wrong or not trusted.

Examples:
  runlock task list
  runlock task list --node web01
  runlock task show chef
  runlock task run chef --param recipe=web::deploy`;

interface TaskValues extends JobValues {
  json: boolean;
  prefix: string;
  node?: string;
  tasksDir: string;
  param?: ReadonlyMap<string, string>;
  dryRun: boolean;
  triggered: boolean;
  verbose: boolean;
  quiet: boolean;
  logFormat: string;
  logFile?: string;
  config: string;
}
