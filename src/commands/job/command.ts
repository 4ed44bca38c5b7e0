/** `runlock job`: its options. */
import { Argument, Option } from 'commander';
import type { Command } from 'commander';
import { isTaskName, TASK_NAMES } from '../../agent/task/definition.ts';
import { isJobId, isPrincipal } from '../../jobs/keys.ts';
import type { JobRef } from '../../jobs/keys.ts';
import { parseDuration, parseFlag, parseNode, parsePositiveDuration, usage } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Asked, Defining } from '../../cli/command.ts';
import {
  addOptions,
  checked,
  lastOptions,
  onLineAlone,
  option,
  toCommon,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Platform } from '../platform.ts';
import { paramOption } from '../param-option.ts';
import { parseReason } from '../reason.ts';
import { JOB_HELP } from './help.ts';
import type { JobOptions, JobRequest } from './request.ts';

const ACTIONS = ['start', 'show', 'list', 'watch', 'cancel'] as const;
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
    .addArgument(new Argument('<action>', 'start, show, list, watch or cancel').choices(ACTIONS))
    .argument('[name]', 'for start: the task; for show, watch and cancel: the job');
  addOptions(command, [
    nodesOption(),
    paramOption('with start: a parameter of the task; repeat for several'),
    option(
      '--principal <name>',
      "who asks: the tasks' files say whom they allow, and Consul's ACL who may write as whom",
      parsePrincipal,
      'ops',
    ),
    ...startOptions(),
    onLineAlone(option('--reason <text>', 'with start and cancel: why, one line', parseReason)),
    onLineAlone(option('--kill', 'with cancel: also end the runs that are under way', parseFlag, false)),
    ...lastOptions('print as JSON; where a job is watched, one line for each change'),
  ]);
  command.addHelpText('after', JOB_HELP);
  command.action((action: Action, name: string | undefined) => {
    const values = withEnvironment(command, env) as Values & JobValues;
    const given = (option: string) => command.getOptionValueSource(option) === 'cli';
    refuseOthers(action, given);
    const { prefix, json } = values;
    const options: JobOptions = { prefix, json, ...requestOf(action, name, values) };
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
    'with start: nothing starts later than this',
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
      'with start: how long to wait until the nodes have accepted or refused',
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

function nodesOption(): Option {
  const made = onLineAlone(
    option('--node <name,...>', 'with start: the nodes, with commas; may be repeated', parseNodes),
  );
  const parse = checked(parseNodes, made);
  return made.argParser((text, before: readonly string[] | undefined) => [
    ...new Set([...(before ?? []), ...parse(text)]),
  ]);
}

const parseNodes = (text: string): readonly string[] => text.split(',').map(parseNode);

function parsePrincipal(text: string): string {
  if (isPrincipal(text)) return text;
  throw usage("not a principal; use letters, digits, '.', '_' and '-', 64 characters at most");
}

function parseId(text: string): string {
  if (isJobId(text)) return text;
  throw usage(JOB_IDS);
}

const JOB_IDS = "not a job's id; use lower-case letters, digits and '-', 64 at most, not '-' first";

const FOR: Readonly<Record<string, { readonly flag: string; readonly actions: readonly Action[] }>> = {
  node: { flag: '--node', actions: ['start'] },
  param: { flag: '--param', actions: ['start'] },
  id: { flag: '--id', actions: ['start'] },
  expires: { flag: '--expires', actions: ['start'] },
  timeout: { flag: '--timeout', actions: ['start'] },
  wait: { flag: '--wait', actions: ['start'] },
  watch: { flag: '--watch', actions: ['start'] },
  dryRun: { flag: '--dry-run', actions: ['start'] },
  reason: { flag: '--reason', actions: ['start', 'cancel'] },
  kill: { flag: '--kill', actions: ['cancel'] },
};

function refuseOthers(action: Action, given: (option: string) => boolean): void {
  for (const [name, { flag, actions }] of Object.entries(FOR)) {
    if (!given(name) || actions.includes(action)) continue;
    const right = actions.map((each) => `'job ${each}'`).join(' and ');
    throw usage(`${flag} is for ${right} only`);
  }
}

function requestOf(action: Action, name: string | undefined, values: JobValues): JobRequest {
  const { principal, reason } = values;
  const because = reason === undefined ? {} : { reason };
  switch (action) {
    case 'start': {
      const { node = [], param = new Map<string, string>(), id, timeout, dryRun, watch } = values;
      if (name === undefined) throw usage("job start takes the name of a task; see 'runlock job --help'");
      if (!isTaskName(name)) throw usage(`'${name}' is not a task's name; it has ${TASK_NAMES}`);
      if (node.length === 0) throw usage("--node is required; see 'runlock job --help'");
      if (watch && dryRun) throw usage('--watch and --dry-run exclude each other');
      return {
        action,
        task: name,
        nodes: node,
        params: param,
        principal,
        ...(id !== undefined && { id }),
        ...because,
        expiresMs: values.expires,
        ...(timeout !== undefined && { timeoutMs: timeout }),
        waitMs: values.wait,
        watch,
        dryRun,
      };
    }
    case 'list':
      if (name !== undefined) throw usage(`job list takes no name; see 'runlock job show ${name}'`);
      return { action };
    case 'show':
    case 'watch':
      return { action, ref: refOf(action, name, principal) };
    case 'cancel':
      if (reason === undefined) throw usage("--reason is required; see 'runlock job --help'");
      return { action, ref: refOf(action, name, principal), reason, kill: values.kill };
  }
}

/** `ops/deploy-42`, or `deploy-42` of the principal. */
function refOf(action: Action, name: string | undefined, principal: string): JobRef {
  if (name === undefined) throw usage(`job ${action} takes a job; 'runlock job list' lists them`);
  const [first = '', second, ...more] = name.split('/');
  const ref = second === undefined ? { principal, id: first } : { principal: first, id: second };
  if (more.length === 0 && isPrincipal(ref.principal) && isJobId(ref.id)) return ref;
  throw usage(`'${name}' is not a job; write its id, or PRINCIPAL/ID`);
}

interface JobValues {
  prefix: string;
  json: boolean;
  principal: string;
  node?: readonly string[];
  param?: ReadonlyMap<string, string>;
  id?: string;
  reason?: string;
  expires: number;
  timeout?: number;
  wait: number;
  watch: boolean;
  dryRun: boolean;
  kill: boolean;
}
