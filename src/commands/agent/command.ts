/** `runlock agent`: its options. */
import { Argument } from 'commander';
import type { Command } from 'commander';
import { isTaskName } from '../../agent/task/definition.ts';
import { parseNode, parsePath, parseSessionTtl, usage } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Asked, Defining } from '../../cli/command.ts';
import { addOptions, keyedAs, lastOptions, option, toCommon, withEnvironment } from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import { tasksDirOption } from '../tasks-dir-option.ts';
import type { Platform } from '../platform.ts';
import type { AgentOptions, AgentAction } from './run.ts';

const ACTIONS = ['run', 'pause', 'resume', 'status', 'reset'] as const;

export const agent = register({
  name: 'agent',
  // It may name the folder of the tasks, and say whom to trust.
  config: { trusted: 'always' },
  define,
  run: async (asked: Asked<AgentOptions>, platform: Platform) =>
    (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, defining: Defining, done: (asked: Asked<AgentOptions>) => void): void {
  const command = program
    .command('agent')
    .description('run the agent of this node, which serves requests for its tasks; pause, resume or show it')
    .addArgument(new Argument('[action]', 'run (default), pause, resume, status or reset').choices(ACTIONS))
    .argument('[task]', 'with reset: the task');
  addOptions(command, [
    option('--node <name>', "name of this node (default: the Consul agent's node name)", parseNode),
    tasksDirOption(),
    option('--hooks-dir <folder>', 'folder of the hook files', parsePath, '/etc/runlock/hooks.d'),
    option('--log-dir <folder>', 'folder for the logs of the runs', parsePath, '/var/log/runlock'),
    option('--state-dir <folder>', 'folder of the agent on this host', parsePath, '/var/lib/runlock'),
    option(
      '--requests <served|trust-everybody>',
      'whom to trust; trust-everybody: serve requests although anyone could write them',
      parseRequests,
      'served',
    ),
    option('--reason <text>', 'with pause: why (one line)', parseReason),
    // In the file and the environment, `session_ttl` is that of runs.
    keyedAs(
      'agent_session_ttl',
      option('--session-ttl <duration>', "TTL of the agent's session", parseSessionTtl, 90_000, '90s'),
    ),
    ...lastOptions('with status: print as JSON'),
  ]);
  command.addHelpText('after', AGENT_HELP);
  command.action((action: (typeof ACTIONS)[number] | undefined, task: string | undefined) => {
    const values = withEnvironment(command, defining.env) as Values & AgentValues;
    const given = (name: string) => command.getOptionValueSource(name) === 'cli';
    const { prefix, node, tasksDir, hooksDir, logDir, stateDir, requests, sessionTtl, json } = values;
    const options: AgentOptions = {
      ...actionOf({ action: action ?? 'run', task, reason: given('reason') ? values.reason : undefined }),
      prefix,
      tasksDir,
      hooksDir,
      logDir,
      stateDir,
      requests,
      ttlMs: sessionTtl,
      json,
      defining,
      ...(node !== undefined && { node }),
      ...(given('config') && { config: values.config }),
    };
    if (json && options.action !== 'status') throw usage("--json is for 'agent status' only");
    done({ common: toCommon(values), options: Object.freeze(options) });
  });
}

interface Line {
  readonly action: (typeof ACTIONS)[number];
  readonly task: string | undefined;
  readonly reason: string | undefined;
}

function actionOf({ action, task, reason }: Line): AgentAction {
  if (reason !== undefined && action !== 'pause') throw usage("--reason is for 'agent pause' only");
  if (action === 'reset') {
    if (task === undefined)
      throw usage("agent reset takes the name of a task; 'runlock task list' lists them");
    if (!isTaskName(task)) throw usage(`'${task}' is not a task's name`);
    return { action, task };
  }
  if (task !== undefined) throw usage(`agent ${action} takes no task`);
  if (action === 'pause') return { action, ...(reason !== undefined && { reason }) };
  return { action };
}

function parseRequests(text: string): 'served' | 'trust-everybody' {
  if (text === 'served' || text === 'trust-everybody') return text;
  throw usage("write 'served' or 'trust-everybody'");
}

function parseReason(text: string): string {
  // eslint-disable-next-line no-control-regex
  if (text === '' || /[\x00-\x1f\x7f]/.test(text)) throw usage('write one line of text');
  return text;
}

const AGENT_HELP = `
The agent runs in the foreground and logs to stderr; a service manager starts it (the package has runlock-agent.service).
It opens no port. It needs Consul, and waits as long as Consul is away. It starts each run as a process of its own, so
stopping, restarting or updating the agent ends no run.

  run           run the agent (default); SIGHUP reads the task files again, SIGTERM and SIGINT end it
  pause         stop starting runs on this node until resume; active runs continue
  resume        end the pause
  status        show how this node's agent is
  reset TASK    let the triggers of a task start runs again

A node has one agent: a second one for the same node is refused (exit code 75).

Consul decides who may ask for a task (see docs/agent.md). If this node's token may write requests itself, or Consul has no
ACLs, anyone could ask in anybody's name; then the agent serves no requests, unless --requests trust-everybody is set.

Exit codes: 0 ended by a signal, done, or (status) the agent is registered; 1 status: the agent is not running or not
registered; 64 wrong usage; 75 another agent of this node is running; 77 Consul denied access; 78 bad configuration.

Examples:
  runlock agent
  runlock agent pause --reason 'disk is full'
  runlock agent status`;

interface AgentValues {
  readonly prefix: string;
  readonly node?: string;
  readonly tasksDir: string;
  readonly hooksDir: string;
  readonly logDir: string;
  readonly stateDir: string;
  readonly requests: 'served' | 'trust-everybody';
  readonly reason?: string;
  readonly sessionTtl: number;
  readonly json: boolean;
  readonly config: string;
}
