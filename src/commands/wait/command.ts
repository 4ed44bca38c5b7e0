/** `runlock wait`: its options. */
import type { Command } from 'commander';
import { durationOr, parseDuration, parseFlag, usage } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Defining } from '../../cli/command.ts';
import {
  addOptions,
  lastOptions,
  groupsOption,
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
    option('--any', 'one of the conditions is enough (default: all must be as asked)', parseFlag, false),
    option('--timeout <duration>', 'longest wait (required); 0: look once', parseDuration),
    option('--stable <duration>', 'how long all must hold without a change', parseDuration, 0, '0'),
    option('--on-timeout <fail|pass>', 'at the end of --timeout: exit 75, or 0', parseOnTimeout, 'fail'),
    option(
      '--since <duration|time|start>',
      'for good: only runs that ended since then; start: of this wait',
      parseSince,
    ),
    groupsOption('group of the conditions that name none; repeat for several', 'default'),
    ...lastOptions('the verdict as JSON'),
  ]);
  command.addHelpText('after', WAIT_HELP);
  command.action(() => {
    const values = withEnvironment(command, env) as Values & WaitValues;
    const { prefix, group: groups, json, any, timeout, stable: stableMs, since, onTimeout } = values;
    const goals = goalsOf(values);
    if (goals.length === 0)
      throw usage("say what to wait for with --until or --while; see 'runlock wait --help'");
    if (timeout === undefined) throw usage('say how long to wait at most with --timeout, such as 10m');
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
  const atMs = /^\d{4}-\d\d-\d\dT/.test(text) ? Date.parse(text) : NaN;
  if (!Number.isNaN(atMs)) return { kind: 'time', atMs };
  const ms = durationOr('start')(text);
  return ms === 'start' ? ms : { kind: 'age', ms };
}

const WAIT_HELP = `
Conditions, each with 'not:' before it for its contrary:
  state:PATH             the state is set ('runlock state'); state:PATH=VALUE to this value; state:PATH!=VALUE not to it
  idle:GROUP             no slot of the group is taken or kept
  blocked:GROUP          a failed, interrupted, abandoned, rebooting or held claim keeps a slot
  active:NODE[@GROUP]    a run of the node is under way
  good:NODE[@GROUP]      the node's last run was good; good:*@GROUP: that of every node that is known there
  healthy:SERVICE[:N]    N instances (1) of the service are healthy
  frozen:GROUP           a freeze stops the group
  agent:NODE             the node's agent is there

What is stored in Consul's KV is judged by one consistent read: conditions that are reported together held together.
runlock waits by blocking queries, without polling, and needs no slot. Inside 'runlock exec' a wait keeps that run's slot
taken: there it prints a warning, and is refused where it would wait for its own run. The time counts from the start,
also while Consul is away.

Exit codes: 0 as asked (or --on-timeout pass); 64 wrong usage; 69 Consul did not answer once; 74 stdout could not be
written; 75 timed out, and stderr says what is missing and who set it; 77 Consul refused; 78 bad configuration, or a
stored document that this version can't read; 128+n ended by signal n.

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
