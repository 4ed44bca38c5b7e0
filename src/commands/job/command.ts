/** `runlock job`: its options. */
import { Argument } from 'commander';
import type { Command } from 'commander';
import { isTaskName, TASK_NAMES } from '../../agent/task/definition.ts';
import { isJobId, isPrincipal } from '../../jobs/keys.ts';
import type { JobRef } from '../../jobs/keys.ts';
import {
  atPlace,
  parseDuration,
  parseFlag,
  parseNode,
  parsePositiveDuration,
  usage,
} from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Asked, Defining } from '../../cli/command.ts';
import { addOptions, lastOptions, onLineAlone, option, toCommon, withEnvironment } from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Platform } from '../platform.ts';
import { paramOption } from '../param-option.ts';
import { parseReason } from '../reason.ts';
import { JOB_HELP } from './help.ts';
import { logsOptions } from './logs-options.ts';
import type { LogsValues } from './logs-options.ts';
import { jobNamed, rolloutOf, rolloutOptions, targetOptions, wantedOf } from './options.ts';
import type { RolloutValues, TargetValues } from './options.ts';
import type { Beginning, JobOptions, JobRequest, RetryKind } from './request.ts';

const ACTIONS = ['start', 'retry', 'show', 'list', 'watch', 'logs', 'cancel'] as const;
type Action = (typeof ACTIONS)[number];

export const job = register({
  name: 'job',
  define,
  run: async (asked: Asked<JobOptions>, platform: Platform) =>
    (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: Asked<JobOptions>) => void): void {
  const command = program
    .command('job')
    .description('ask nodes to run one of their tasks, and follow what becomes of it')
    .addArgument(new Argument('<action>', 'start, retry, show, list, watch, logs or cancel').choices(ACTIONS))
    .argument('[name]', 'for start: the task; for retry, show, watch, logs and cancel: the job')
    .argument('[node]', 'for logs: the node');
  addOptions(command, [
    ...targetOptions(),
    paramOption('with start: a parameter of the task; repeat for several'),
    option(
      '--principal <name>',
      "who asks: the tasks' files say whom they allow, and Consul's ACL who may write as whom",
      parsePrincipal,
      'ops',
    ),
    ...rolloutOptions(),
    ...startOptions(),
    ...retryOptions(),
    ...logsOptions(),
    onLineAlone(option('--reason <text>', 'with start, retry and cancel: why, one line', parseReason)),
    onLineAlone(option('--kill', 'with cancel: also end the runs that are under way', parseFlag, false)),
    ...lastOptions('print as JSON; where a job is watched, one line for each change'),
  ]);
  command.addHelpText('after', JOB_HELP);
  command.action((action: Action, name: string | undefined, node: string | undefined) => {
    const values = withEnvironment(command, env) as Values & JobValues;
    const given = (option: string) => command.getOptionValueSource(option) === 'cli';
    refuseOthers(action, given);
    const { prefix, json } = values;
    if (node !== undefined && action !== 'logs')
      throw usage(`job ${action} takes one name, not '${node}' as well`);
    const options: JobOptions = { prefix, json, ...requestOf(action, { name, node }, values) };
    done({ common: toCommon(values), options: Object.freeze(options) });
  });
}

/** `dry-run`, `wait` and `timeout` mean the node's own runs in the environment and the file. */
const startOptions = () => [
  onLineAlone(
    option('--id <id>', "with start: the job's id, so that a repeated start is the same job", parseId),
  ),
  option(
    '--expires <duration>',
    'with start and retry: nothing starts later than this',
    parsePositiveDuration,
    14_400_000,
    '4h',
  ),
  onLineAlone(
    option(
      '--timeout <duration>',
      "with start: kill each node's command after this long (default: as its task says)",
      parsePositiveDuration,
    ),
  ),
  onLineAlone(
    option(
      '--wait <duration>',
      'how long to wait: with start, until the nodes have accepted or refused; with logs, for each answer',
      parseDuration,
      30_000,
      '30s',
    ),
  ),
  onLineAlone(option('--watch', 'with start: follow the job to its end', parseFlag, false)),
  onLineAlone(
    option('--dry-run', 'with start: say which nodes would take it, start nothing', parseFlag, false),
  ),
];

/** Their names mean other things in the environment and the file. */
const retryOptions = () =>
  [
    option('--failed', 'with retry: the nodes that failed', parseFlag, false),
    option('--lost', 'with retry: the nodes whose run was lost', parseFlag, false),
    option('--not-started', 'with retry: the nodes where it never ran', parseFlag, false),
  ].map(onLineAlone);

function parsePrincipal(text: string): string {
  if (isPrincipal(text)) return text;
  throw usage("not a principal; use letters, digits, '.', '_' and '-', 64 characters at most");
}

function parseId(text: string): string {
  if (isJobId(text)) return text;
  throw usage(JOB_IDS);
}

const JOB_IDS = "not a job's id; use lower-case letters, digits and '-', 64 at most, not '-' first";

type Name = keyof JobValues;

/** What each action takes, besides what all do. */
const TARGETS: readonly Name[] = ['node', 'service', 'tag', 'meta', 'filter', 'group', 'fromJob'];
const ROLLOUT: readonly Name[] = [
  ...(['canary', 'steps', 'pause', 'maxRunning', 'maxFailures', 'offline', 'splay', 'noop'] as const),
  ...(['id', 'expires', 'timeout', 'wait', 'watch', 'dryRun', 'reason'] as const),
];
const TAKES: Readonly<Record<Action, readonly Name[]>> = {
  start: ['param', ...TARGETS, ...ROLLOUT],
  retry: ['failed', 'lost', 'notStarted', ...ROLLOUT],
  show: [],
  list: [],
  watch: [],
  logs: ['follow', 'lines', 'raw', 'wait'],
  cancel: ['reason', 'kill'],
};
const OF_SOME = [...new Set(Object.values(TAKES).flat())];

function refuseOthers(action: Action, given: (option: string) => boolean): void {
  const odd = OF_SOME.find((name) => given(name) && !TAKES[action].includes(name));
  if (odd === undefined) return;
  const right = ACTIONS.filter((each) => TAKES[each].includes(odd)).map((each) => `'job ${each}'`);
  throw usage(`${flagOf(odd)} is for ${right.join(' and ')} only`);
}

/** `fromJob` → `--from-job` */
const flagOf = (name: string) => `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

interface Names {
  readonly name: string | undefined;
  readonly node: string | undefined;
}

function requestOf(action: Action, { name, node }: Names, values: JobValues): JobRequest {
  const { principal, reason } = values;
  switch (action) {
    case 'start': {
      const { param = new Map<string, string>() } = values;
      if (name === undefined) throw usage("job start takes the name of a task; see 'runlock job --help'");
      if (!isTaskName(name)) throw usage(`'${name}' is not a task's name; it has ${TASK_NAMES}`);
      const wanted = wantedOf(values, principal);
      if (!wanted)
        throw usage("say which nodes, with --node, --service, --group or others; see 'runlock job --help'");
      return { action, task: name, wanted, params: param, principal, ...beginningOf(values) };
    }
    case 'retry': {
      const { failed, lost, notStarted } = values;
      const kinds: RetryKind[] = [
        ...(failed ? (['failed'] as const) : []),
        ...(lost ? (['lost'] as const) : []),
        ...(notStarted ? (['not-started'] as const) : []),
      ];
      return { action, ref: refOf(action, name, principal), kinds, ...beginningOf(values) };
    }
    case 'list':
      if (name !== undefined) throw usage(`job list takes no name; see 'runlock job show ${name}'`);
      return { action };
    case 'show':
    case 'watch':
      return { action, ref: refOf(action, name, principal) };
    case 'logs':
      return { action, ref: refOf(action, name, principal), ...logsOf(node, values) };
    case 'cancel':
      if (reason === undefined) throw usage("--reason is required; see 'runlock job --help'");
      return { action, ref: refOf(action, name, principal), reason, kill: values.kill };
  }
}

function beginningOf(values: JobValues): Beginning {
  const { id, reason, timeout, watch, dryRun, expires, wait } = values;
  if (watch && dryRun) throw usage('--watch and --dry-run exclude each other');
  return {
    ...rolloutOf(values),
    ...(id !== undefined && { id }),
    ...(reason !== undefined && { reason }),
    expiresMs: expires,
    ...(timeout !== undefined && { timeoutMs: timeout }),
    waitMs: wait,
    watch,
    dryRun,
  };
}

function refOf(action: Action, name: string | undefined, principal: string): JobRef {
  if (name === undefined) throw usage(`job ${action} takes a job; 'runlock job list' lists them`);
  const ref = jobNamed(name, principal);
  if (ref) return ref;
  throw usage(`'${name}' is not a job; write its id, or PRINCIPAL/ID`);
}

function logsOf(node: string | undefined, { follow, lines, raw, json, wait }: JobValues) {
  if (node === undefined) throw usage("job logs takes a job and a node; see 'runlock job --help'");
  if (raw && json) throw usage('--raw and --json exclude each other');
  return { node: atPlace('job logs JOB ', node, parseNode), follow, lines, raw, waitMs: wait };
}

interface JobValues extends TargetValues, RolloutValues, LogsValues {
  readonly prefix: string;
  readonly json: boolean;
  readonly principal: string;
  readonly param?: ReadonlyMap<string, string>;
  readonly id?: string;
  readonly reason?: string;
  readonly expires: number;
  readonly timeout?: number;
  readonly wait: number;
  readonly watch: boolean;
  readonly dryRun: boolean;
  readonly kill: boolean;
  readonly failed: boolean;
  readonly lost: boolean;
  readonly notStarted: boolean;
}
