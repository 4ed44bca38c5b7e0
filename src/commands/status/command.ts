/** `runlock status`: its options. */
import { Argument } from 'commander';
import type { Command } from 'commander';
import type { StatusMode, StatusRequest } from './request.ts';
import type { RunlockError } from '../../errors.ts';
import { parseFlag, parseGroup, parsePositiveDuration, usage } from '../../cli/values.ts';
import { boundOptions, serviceOption, toBounds } from '../gate-flags.ts';
import type { GateValues } from '../gate-flags.ts';
import { register } from '../../cli/command.ts';
import type { Asked, Defining } from '../../cli/command.ts';
import {
  addOptions,
  collect,
  groupsOption,
  lastOptions,
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
    .description('who holds, who waits, since when, and why a group stands still')
    .addArgument(
      new Argument('[group...]', 'only these groups')
        .argParser(collect(parseGroup, 'group'))
        .default([], 'all'),
    );
  addOptions(command, [
    groupsOption('the same, as for exec; can be given several times'),
    option('--watch', 'draw it anew on every change, until q or Ctrl-C', parseFlag, false),
    option('--all', 'a line for each idle group too', parseFlag, false),
    option('--blocked', 'only groups that are blocked', parseFlag, false),
    option('--check', 'one line and an exit code, as a monitoring plugin', parseFlag, false),
    option(
      '--max-held <duration>',
      'with --check: longest time that a claim may last',
      parsePositiveDuration,
    ),
    option('--max-wait <duration>', 'with --check: longest time that a run may wait', parsePositiveDuration),
    serviceOption('the health gate of these services too; can be given several times'),
    ...boundOptions(),
    ...lastOptions('the same data as JSON; with --watch a line for each change'),
  ]);
  command.addHelpText('after', STATUS_HELP);
  command.action((named: string[]) => {
    const values = withEnvironment(command, env) as Values & StatusValues & GateValues;
    const { prefix, json, service } = values;
    const given = (name: keyof StatusValues) => command.getOptionValueSource(name) === 'cli';
    // Elsewhere than here a group is the one that this node runs in; without one status is of them all.
    const groups = [...named, ...(given('group') ? (values.group ?? []) : [])];
    const mode = modeOf(values, given);
    if (mode && command.getOptionValueSource('service') === 'cli')
      throw usage(`--service is shown once; leave out --${mode.kind}`);
    const gate = service === undefined ? undefined : { services: service, bounds: toBounds(values) };
    const { all, blocked } = values;
    if (all && blocked) throw usage('--all and --blocked contradict each other; leave one out');
    const shown = { ...(all && { all }), ...(blocked && { blocked }) };
    const options: StatusRequest = {
      prefix,
      json,
      groups,
      ...shown,
      ...(mode && { mode }),
      ...(gate && { gate }),
    };
    done({ common: toCommon(values), options: Object.freeze(options) });
  });
}

function modeOf(values: StatusValues, given: (name: keyof StatusValues) => boolean): StatusMode | undefined {
  const { watch, check, json, maxHeld, maxWait } = values;
  if (check) {
    if (watch || json)
      throw usage(`--check prints one line and ends; leave out ${watch ? '--watch' : '--json'}`);
    const chosen = (['all', 'blocked'] as const).find(given);
    if (chosen) throw usage(`--check prints one line; leave out --${chosen}`);
    const limits = {
      ...(maxHeld !== undefined && { maxHeldMs: maxHeld }),
      ...(maxWait !== undefined && { maxWaitMs: maxWait }),
    };
    return { kind: 'check', ...limits };
  }
  const idle = (['maxHeld', 'maxWait'] as const).find(given);
  if (idle)
    throw usage(`--${idle === 'maxHeld' ? 'max-held' : 'max-wait'} says something to --check alone; add it`);
  return watch ? { kind: 'watch' } : undefined;
}

/**
 * To a monitoring system 3 is UNKNOWN, and 64 is nothing, or even CRITICAL: a command line that asks for a check is
 * answered as a check, whatever is wrong with it.
 */
function unknownIfWrong(argv: readonly string[], error: RunlockError): Asked<StatusRequest> | undefined {
  if (!argv.includes('--check')) return undefined;
  const mode: StatusMode = { kind: 'wrong-check', message: error.message };
  const common = { verbose: false, quiet: true, logFormat: 'text' } as const;
  return { common, options: { prefix: 'runlock', json: false, groups: [], mode } };
}

const STATUS_HELP = `
Without names every group is shown, with a name that group and all groups below it, as 'runlock freeze' stops them. First
comes how many groups are in each state:
  blocked  every slot that was ever used is kept by a claim of a run that failed, was interrupted or vanished (until its
           hold ends, if that ends), or that can't be read; or by a run that waits in a blocked group meanwhile
  frozen   no new run starts, by a freeze of the group or of one above it
  waiting  a run waits
  running  a slot is taken, or one of several is kept
  idle     none of these
A group is in the first of these states that it fits. Groups with a kept claim are shown in full and first, those where
somebody waits before the others; then a line for each group that is frozen or where somebody runs or waits; then the idle
ones in one line. A group that is named is shown in full.

--service shows who of a service is offline and why, and for which nodes its gate is open, as 'runlock gate' sees it; a
group's section of the configuration file can name them too. Not with --watch and --check.

--watch asks Consul again only when something changes, goes on when Consul is back, and leaves the terminal as it was.
Its exit code is 0 after q or Ctrl-C, 128+n after another signal. q is heard where stdin is a terminal.

--check prints one line with performance data and exits as monitoring plugins do, with wrong usage as 3 too:
  0 OK
  1 WARNING   a claim is kept by a run that failed, was interrupted, vanished or was abandoned, or can't be read, and
              nobody waits yet or another slot of the group still moves; a freeze makes somebody wait; a problem is stored
  2 CRITICAL  a group stands still behind such a claim and somebody waits; --max-held or --max-wait is exceeded
              (--max-held counts every claim: running, rebooting and held by acquire too)
  3 UNKNOWN   Consul can't be reached, or the token may not read all that is asked, or nobody has used the group
Where several apply the order is CRITICAL, WARNING, UNKNOWN. It takes 10 s at most. It needs read rights on the whole
group, key_prefix "runlock/prod/web/", and the freeze keys above it; for all groups on key_prefix "runlock/".

Examples:
  runlock status prod/web
  runlock status prod                 # prod, prod/web, prod/db ...
  runlock status --blocked
  runlock status prod/web --service web
  runlock status --watch
  runlock status --check --max-held 2h --max-wait 1h -g prod/web`;

interface StatusValues {
  prefix: string;
  json: boolean;
  watch: boolean;
  check: boolean;
  all: boolean;
  blocked: boolean;
  group?: string[];
  maxHeld?: number;
  maxWait?: number;
}
