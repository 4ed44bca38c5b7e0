/** `runlock status`: its options. */
import { Argument } from 'commander';
import type { Command } from 'commander';
import type { StatusMode, StatusRequest } from './request.ts';
import type { RunlockError } from '../../errors.ts';
import { parseFlag, parseGroup, parseNode, parsePositiveDuration, usage } from '../../cli/values.ts';
import { boundOptions, serviceOption, toBounds } from '../gate-flags.ts';
import type { GateValues } from '../gate-flags.ts';
import { register } from '../../cli/command.ts';
import type { Asked, Defining } from '../../cli/command.ts';
import {
  addOptions,
  collect,
  groupsOption,
  lastOptions,
  onLineAlone,
  option,
  toCommon,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Platform } from '../platform.ts';

export const status = register({
  name: 'status',
  ifWrong: unknownIfWrong,
  define,
  run: async (asked: Asked<StatusRequest>, platform: Platform) =>
    (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: Asked<StatusRequest>) => void): void {
  const command = program
    .command('status')
    .description('show slots and queues, and why a group is blocked')
    .addArgument(
      new Argument('[group...]', 'show only these groups')
        .argParser(collect(parseGroup, 'group'))
        .default([], 'all'),
    );
  addOptions(command, [
    groupsOption('show only this group; repeat for several groups'),
    // In the environment and the file it names the node that this host runs as.
    onLineAlone(
      option('--node <name>', 'show this node: its agent, its runs, and what is asked of it', parseNode),
    ),
    option('--watch', 'redraw on every change, until q or Ctrl-C', parseFlag, false),
    option('--all', 'show a line for each idle group too', parseFlag, false),
    option('--blocked', 'show only blocked groups', parseFlag, false),
    option('--check', 'print one line and exit like a monitoring plugin', parseFlag, false),
    option(
      '--max-held <duration>',
      'with --check: CRITICAL if a claim is older than this',
      parsePositiveDuration,
    ),
    option(
      '--max-wait <duration>',
      'with --check: CRITICAL if a run has been waiting longer',
      parsePositiveDuration,
    ),
    serviceOption('also show the health gate of these services; repeat for several'),
    ...boundOptions(),
    ...lastOptions('print as JSON; with --watch one line for each change'),
  ]);
  command.addHelpText('after', STATUS_HELP);
  command.action((named: string[]) => {
    const values = withEnvironment(command, env) as Values & StatusValues & GateValues;
    const { prefix, json, service } = values;
    const given = (name: keyof StatusValues | 'service') => command.getOptionValueSource(name) === 'cli';
    // Ignore a group from the environment or the file, which names the group that this node runs in: without a group on
    // the command line, status shows all.
    const groups = [...named, ...(given('group') ? (values.group ?? []) : [])];
    const mode = modeOf(values, given);
    if (mode && given('service')) throw usage(`--service and --${mode.kind} exclude each other`);
    const gate = service === undefined ? undefined : { services: service, bounds: toBounds(values) };
    const { all, blocked } = values;
    if (all && blocked) throw usage('--all and --blocked contradict each other; leave one out');
    const other = (['watch', 'check', 'all', 'blocked', 'service'] as const).find(given);
    if (values.node !== undefined && other) throw usage(`--node and --${other} exclude each other`);
    const shown = { ...(all && { all }), ...(blocked && { blocked }) };
    const options: StatusRequest = {
      prefix,
      json,
      groups,
      ...shown,
      ...(values.node !== undefined && { node: values.node }),
      ...(mode && { mode }),
      ...(gate && { gate }),
    };
    done({ common: toCommon(values), options: Object.freeze(options) });
  });
}

function modeOf(values: StatusValues, given: (name: keyof StatusValues) => boolean): StatusMode | undefined {
  const { watch, check, json, maxHeld, maxWait } = values;
  if (check) {
    if (watch || json) throw usage(`--check and ${watch ? '--watch' : '--json'} exclude each other`);
    const chosen = (['all', 'blocked'] as const).find(given);
    if (chosen) throw usage(`--check and --${chosen} exclude each other`);
    const limits = {
      ...(maxHeld !== undefined && { maxHeldMs: maxHeld }),
      ...(maxWait !== undefined && { maxWaitMs: maxWait }),
    };
    return { kind: 'check', ...limits };
  }
  const idle = (['maxHeld', 'maxWait'] as const).find(given);
  if (idle) throw usage(`--${idle === 'maxHeld' ? 'max-held' : 'max-wait'} needs --check`);
  return watch ? { kind: 'watch' } : undefined;
}

/**
 * Answers a wrong command line with --check as a check: monitoring systems read 3 as UNKNOWN, but take 64 for nothing,
 * or even for CRITICAL.
 */
function unknownIfWrong(argv: readonly string[], error: RunlockError): Asked<StatusRequest> | undefined {
  if (!argv.includes('--check')) return undefined;
  const mode: StatusMode = { kind: 'wrong-check', message: error.message };
  const common = { verbose: false, quiet: true, logFormat: 'text' } as const;
  return { common, options: { prefix: 'runlock', json: false, groups: [], mode } };
}

const STATUS_HELP = `
Without names, all groups are shown. With a name, that group and all groups below it are shown, as 'runlock freeze' acts on
them. The first line counts the groups in each state:
  blocked  no slot moves: each slot used so far is held by the claim of a failed, interrupted or vanished run, by an
           unreadable claim, or by a run that is waiting in another blocked group
  frozen   no new runs, because of a freeze of the group or of one above it
  waiting  a run is waiting: in the queue, or without a slot for its conditions or its health gate
  running  a slot is taken, or one of several is held
  idle     none of these
A group has the first of these states that applies. Groups with such a claim are listed first and in full (with waiting
runs before without), then frozen, waiting and running groups, one line each, then all idle groups in one line. A group
that you name is shown in full.

Of a run that waits without a slot (exec --when, --service) status shows what it is waiting for and what is the case
instead: 'state:db/schema=42: db/schema is 41, set by db01 3m ago'. A circle of waits is shown first: runs that wait for
each other, so that none of them can start.

--node shows one node: whether its agent is running, its tasks, what runs there and what it waits for, what is asked of it,
and its last run in each group; all read at one moment, from the groups named, or from all.

--service shows which instances of a service are offline and why, and for which nodes its gate is open, as 'runlock gate'
does. A group's section of the configuration file can also name services. Not with --watch or --check.

--watch reads from Consul only when something changes, continues when Consul is back, and restores the terminal at the
end. Its exit code is 0 after q or Ctrl-C, 128+n after another signal. The q key works only if stdin is a terminal.

--check prints one line with performance data and exits like a monitoring plugin (wrong usage is 3 too):
  0 OK
  1 WARNING   a slot is held by the claim of a run that failed, was interrupted, vanished or was abandoned, or by an
              unreadable claim, while no run is waiting or another slot still moves; a run is waiting because of a
              freeze; a record can't be read
  2 CRITICAL  a group is blocked by such claims and runs are waiting; runs wait for each other in a circle;
              --max-held or --max-wait is exceeded
              (--max-held counts every claim, also of running and rebooting nodes, and of acquire)
  3 UNKNOWN   Consul is unreachable, the token lacks read rights, or the group has not been used
If several apply, CRITICAL comes before WARNING, and WARNING before UNKNOWN. A check takes at most 10 s. It needs read
rights on the whole group (key_prefix "runlock/prod/web/") and on the freeze keys above it; for all groups, on
key_prefix "runlock/".

Examples:
  runlock status prod/web
  runlock status prod                 # prod, prod/web, prod/db ...
  runlock status --blocked
  runlock status prod/web --service web
  runlock status --node web01
  runlock status --watch
  runlock status --check --max-held 2h --max-wait 1h -g prod/web`;

interface StatusValues {
  prefix: string;
  json: boolean;
  watch: boolean;
  check: boolean;
  all: boolean;
  blocked: boolean;
  node?: string;
  group?: string[];
  maxHeld?: number;
  maxWait?: number;
}
