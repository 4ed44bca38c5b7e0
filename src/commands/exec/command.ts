/** `runlock exec`: its options. */
import type { Command } from 'commander';
import type { ExecOptions, GroupChoice } from '../../runner/options.ts';
import {
  parseCodes,
  parseDuration,
  parseFlag,
  parseHold,
  parsePath,
  parsePositiveDuration,
  usage,
} from '../../cli/values.ts';
import { valueIn } from '../../cli/config/apply.ts';
import { execGateOptions, gateOf } from '../gate-flags.ts';
import type { ExecGateValues } from '../gate-flags.ts';
import { register } from '../../cli/command.ts';
import { inGroup } from '../../conditions/parse.ts';
import type { Condition } from '../../conditions/parse.ts';
import { conditionsOption } from '../condition-option.ts';
import { checkSize, checkStart, stateOptions, statesOf } from './states.ts';
import type { Defining } from '../../cli/command.ts';
import {
  addOptions,
  groupsOption,
  lastOptions,
  onLineAlone,
  option,
  ownerOptions,
  slotOptions,
  toCommon,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Platform } from '../platform.ts';
import type { ExecAsked } from './run.ts';

export const exec = register({
  name: 'exec',
  config: { perGroup: ['when', 'publish', 'during'] },
  define,
  run: async (asked: ExecAsked, platform: Platform) => (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: ExecAsked) => void): void {
  const command = program
    .command('exec')
    .description('wait for a slot of the group, run the command, release the slot')
    .usage('[options] -- <command> [args...]')
    .argument('<command>', 'program to run')
    .argument('[args...]', 'arguments of the program, passed unchanged')
    .passThroughOptions();
  addOptions(command, [
    groupsOption('group to lock; repeat for several groups', 'default'),
    ...slotOptions(),
    option('--splay <duration>', 'random delay before joining the queue', parseDuration, 0, '0'),
    option(
      '--hold <duration|forever|none>',
      'how long a failed, interrupted or vanished run keeps its slot',
      parseHold,
      'forever',
    ),
    option(
      '--release-on-signal',
      'release the slot when a signal ends the run (default: keep the slot, as after a failure)',
      parseFlag,
      false,
    ),
    option('--timeout <duration>', 'kill the command after this long', parsePositiveDuration),
    option('--kill-after <duration>', 'delay between SIGTERM and SIGKILL', parseDuration, 10_000, '10s'),
    option('--ok-codes <list>', 'exit codes that mean success (default: by tool)', parseCodes),
    option(
      '--reboot-codes <list>',
      'exit codes that mean the node is about to reboot (default: by tool)',
      parseCodes,
    ),
    ...ownerOptions(),
    conditionsOption(
      '--when <condition>',
      "condition to wait for, without a slot, before the command starts; repeat for several (see 'runlock wait')",
    ),
    ...stateOptions(),
    ...execGateOptions(),
    option(
      '--metrics-file <file>',
      "write metrics to this file, for node_exporter's textfile collector",
      parsePath,
    ),
    // Given by the node's agent alone.
    onLineAlone(option('--log-file <file>', "file for the command's output", parsePath)).hideHelp(),
    option('--dry-run', 'print what would happen, run nothing', parseFlag, false),
    ...lastOptions(),
  ]);
  command.addHelpText('after', EXEC_HELP);
  command.action((name: string, args: string[]) => {
    const values = withEnvironment(command, env);
    const { wait, splay, timeout, killAfter, sessionTtl, conflictExitCode, metricsFile, ...rest } =
      values as Values & ExecValues;
    const { group, okCodes, rebootCodes, node, dryRun, logFile, prefix } = rest;
    const options: ExecOptions = {
      prefix,
      groups: toChoices(command, group),
      wait,
      splayMs: splay,
      killAfterMs: killAfter,
      sessionTtlMs: sessionTtl,
      dryRun,
      ...(logFile !== undefined && !dryRun && { logFile }),
      ...gateOf(values as Values & ExecGateValues, (name) => command.getOptionValueSource(name) === 'cli'),
      ...whenOf(command, group),
      ...statesOf(command, group),
      ...(timeout !== undefined && { timeoutMs: timeout }),
      ...(okCodes && { okCodes }),
      ...(rebootCodes && { rebootCodes }),
      ...(node !== undefined && { node }),
      command: name,
      args,
    };
    checkStart(group.length, options);
    checkSize(options);
    done({
      common: toCommon(values),
      options: Object.freeze(options),
      conflictExitCode,
      ...(metricsFile !== undefined && { metricsFile }),
    });
  });
}

/** The conditions of all groups of the run, each once. */
function whenOf(command: Command, groups: readonly string[]): Pick<ExecOptions, 'when'> {
  const source = command.getOptionValueSource('when');
  const isOfAll = source === 'cli' || source === 'env';
  const all = groups.flatMap((group) => {
    const conditions = (valueIn(command, '--when', group) ?? []) as readonly Condition[];
    // What a section says is about its own group, and not about the run's others.
    return isOfAll ? conditions : conditions.map((condition) => inGroup(condition, group));
  });
  const when = [...new Map(all.map((condition) => [condition.text, condition])).values()];
  return when.length === 0 ? {} : { when };
}

/** The lease of each group keeps a connection open, and Consul accepts 200 from a host. */
const MOST_GROUPS = 20;

function toChoices(command: Command, groups: readonly string[]): ExecOptions['groups'] {
  if (groups.length > MOST_GROUPS)
    throw usage(`too many groups (${groups.length}); at most ${MOST_GROUPS} are allowed`);
  const toChoice = (group: string): GroupChoice => ({
    group,
    slots: valueIn(command, '--slots', group) as number,
    hold: valueIn(command, '--hold', group) as GroupChoice['hold'],
    ...(valueIn(command, '--release-on-signal', group) === true && { releaseOnSignal: true }),
  });
  const [first = 'default', ...others] = groups;
  return [toChoice(first), ...others.map(toChoice)];
}

const EXEC_HELP = `
Durations are like 90s, 10m, 1h30m, 2d or 1w.

Exit codes: the command's own; 64 wrong usage; 69 Consul unreachable; 75 busy (no slot within --wait, a condition of --when
not met, the gate closed or its lock taken, the group frozen, or this node already running or queued); 77 Consul denied
access; 78 bad configuration; 79 lock lost, command killed, or nothing published; 80 services not healthy after the command (--healthy-within);
81 job stopped; 124 killed by --timeout; 126, 127 command not executable, not found; 128+n the command, or a waiting runlock, was killed by
signal n.

When a signal (systemctl stop, a shutdown, Ctrl-C) ends a run before its command succeeds, the node keeps its slot, as
after a failure. With --release-on-signal the slot is released. A run that is still waiting just leaves the queue.

Examples:
  runlock exec -g prod/app --when state:db/schema=42 -- chef-client
  runlock exec -- chef-client
  runlock exec -g prod/web -n 2 -w 30m -- ansible-playbook site.yml
  runlock exec -g rack/r4 -g prod/web -- chef-client
  runlock exec -g prod/db --hold 4h --timeout 1h -- puppet agent --test
  runlock exec -g prod/web --service web --maintenance --settle 20s --healthy-within 2m -- chef-client`;

interface ExecValues {
  group: readonly string[];
  wait: number | 'forever';
  splay: number;
  timeout?: number;
  killAfter: number;
  okCodes?: readonly number[];
  rebootCodes?: readonly number[];
  conflictExitCode: number;
  metricsFile?: string;
  logFile?: string;
  node?: string;
  sessionTtl: number;
  dryRun: boolean;
  prefix: string;
}
