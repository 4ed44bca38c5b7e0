/** `runlock wait`: its options. */
import type { Command } from 'commander';
import { durationOr, parseDuration, parseFlag, usage } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Defining } from '../../cli/command.ts';
import {
  addOptions,
  lastOptions,
  groupsOption,
  keyedAs,
  option,
  toCommon,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Condition } from '../../conditions/parse.ts';
import { conditionsOption } from '../condition-option.ts';
import type { Platform } from '../platform.ts';
import type { WaitAsked } from './run.ts';
import type { Goal } from './wait.ts';

export const wait = register({
  name: 'wait',
  define,
  run: async (asked: WaitAsked, platform: Platform) => (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: WaitAsked) => void): void {
  const command = program.command('wait').description('wait until conditions hold');
  addOptions(command, [
    conditionsOption('--until <condition>', 'wait until this holds; repeat for several'),
    conditionsOption('--while <condition>', 'wait as long as this holds; repeat for several'),
    option('--any', 'stop when one of the conditions is met (default: all)', parseFlag, false),
    // In the file and the environment, `timeout` is that of exec, which kills the command.
    keyedAs(
      'wait_timeout',
      option(
        '--timeout <duration>',
        'how long to wait at most (required, or wait_timeout in the file); 0: check once',
        parseDuration,
      ),
    ),
    option(
      '--stable <duration>',
      'how long the conditions must hold without a change',
      parseDuration,
      0,
      '0',
    ),
    option(
      '--on-timeout <fail|pass>',
      'at the end of --timeout: exit 75 (fail) or 0 (pass)',
      parseOnTimeout,
      'fail',
    ),
    option(
      '--since <duration|time|start>',
      'for good: count only runs that ended since then; start: since this wait began',
      parseSince,
    ),
    groupsOption('group for active: and good: without @GROUP; repeat for several', 'default'),
    ...lastOptions('print the result as JSON'),
  ]);
  command.addHelpText('after', WAIT_HELP);
  command.action(() => {
    const values = withEnvironment(command, env) as Values & WaitValues;
    const { prefix, group: groups, json, any, timeout, stable: stableMs, since, onTimeout } = values;
    const goals = goalsOf(values);
    if (goals.length === 0) throw usage("--until or --while is required; see 'runlock wait --help'");
    if (timeout === undefined)
      throw usage(
        "--timeout is required, such as --timeout 10m (or RUNLOCK_WAIT_TIMEOUT, or wait_timeout in the configuration file); see 'runlock wait --help'",
      );
    if (since !== undefined && !goals.some(({ condition }) => condition.kind === 'good'))
      throw usage('--since needs a condition good:NODE');
    const options = { prefix, groups, goals, any, timeoutMs: timeout, stableMs, json, onTimeout };
    const more = since !== undefined && { since };
    done({ common: toCommon(values), options: Object.freeze({ ...options, ...more }) });
  });
}

const goalsOf = (values: WaitValues): Goal[] => [
  ...(values.until ?? []).map((condition) => ({ option: 'until', condition }) as const),
  ...(values.while ?? []).map(
    (condition) => ({ option: 'while', condition: { ...condition, not: !condition.not } }) as const,
  ),
];

function parseOnTimeout(text: string): 'fail' | 'pass' {
  if (text === 'fail' || text === 'pass') return text;
  throw usage("write 'fail' or 'pass'");
}

function parseSince(text: string): NonNullable<WaitAsked['options']['since']> {
  if (/^\d{4}-/.test(text)) return { kind: 'time', atMs: parseTime(text) };
  try {
    const ms = durationOr('start')(text);
    return ms === 'start' ? ms : { kind: 'age', ms };
  } catch {
    throw usage(`write a duration like 30m, a time like ${A_TIME}, or start`);
  }
}

const A_TIME = '2026-03-01T12:00:00Z';

/** A point in time, in milliseconds since the epoch. Local times are refused: some happen twice a year, some never. */
function parseTime(text: string): number {
  const [, date = '', time = '', zone = ''] =
    /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(Z|[+-]\d\d:\d\d)$/.exec(text) ?? [];
  // JavaScript takes 31 February for a day in March.
  const isDay = Date.parse(date) && new Date(Date.parse(date)).toISOString().startsWith(date);
  const atMs = Date.parse(`${date}T${time}${zone}`);
  if (!isDay || Number.isNaN(atMs))
    throw usage(
      `not a time; write date, time, and Z or an offset, like ${A_TIME} or 2026-03-01T14:00:00+02:00`,
    );
  return atMs;
}

const WAIT_HELP = `
Conditions; put 'not:' in front to negate one:
  state:PATH             the state is set; state:PATH=VALUE: set to VALUE; state:PATH!=VALUE: not set to VALUE
  idle:GROUP             no slot of the group is taken or held
  blocked:GROUP          a failed, interrupted, abandoned, rebooting or held claim holds a slot
  active:NODE[@GROUP]    a run of the node is active
  good:NODE[@GROUP]      the node's last run succeeded; good:*@GROUP: the last run of every node with a recorded run
  healthy:SERVICE[:N]    at least N instances (default: 1) of the service are healthy
  frozen:GROUP           a freeze stops the group
  agent:NODE             the node's runlock agent (not Consul's) is running

All conditions that are stored in Consul's KV come from one consistent read, so those reported together held together.
runlock wait does not poll, and needs no slot. Inside 'runlock exec' the run keeps its slot during the wait: runlock
wait prints a warning there, and refuses to wait for the end of its own run. --timeout counts from the start, also while
Consul is unreachable.

Exit codes: 0 conditions met (or --on-timeout pass); 64 wrong usage; 69 Consul never answered; 74 stdout could not be
written; 75 timed out: stderr names each condition that is not met, and its current value, or that the states keep changing;
77 Consul denied access; 78 bad configuration, or a stored record that this version can't read; 128+n killed by signal n.

Examples:
  runlock wait --until state:db/schema=42 --timeout 10m
  runlock wait --while active:db01 --timeout 1h
  runlock wait --until 'good:*@prod/db' --until healthy:web:2 --stable 20s --timeout 30m
  runlock wait --until idle:prod/db --timeout 0 --json`;

interface WaitValues {
  prefix: string;
  group: string[];
  json: boolean;
  until?: Condition[];
  while?: Condition[];
  any: boolean;
  timeout?: number;
  stable: number;
  onTimeout: 'fail' | 'pass';
  since?: NonNullable<WaitAsked['options']['since']>;
}
