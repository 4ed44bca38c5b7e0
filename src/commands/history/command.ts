/** `runlock history`: its options. */
import type { Command } from 'commander';
import type { HistoryRequest } from './history.ts';
import { parseGroup, parseNode, parsePositiveDuration, usage } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Asked, Defining } from '../../cli/command.ts';
import {
  addOptions,
  checked,
  groupOfLine,
  groupsOption,
  lastOptions,
  option,
  toCommon,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Platform } from '../platform.ts';

export const history = register({
  name: 'history',
  define,
  run: async (asked: Asked<HistoryRequest>, platform: Platform) =>
    (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: Asked<HistoryRequest>) => void): void {
  const command = program
    .command('history')
    .description("show each node's last run, oldest success first")
    .argument(
      '[group]',
      'show only this group and the groups below it (default: all)',
      checked(parseGroup, 'group'),
    );
  addOptions(command, [
    groupsOption('show only this group, as for exec'),
    option(
      '--silent-for <duration>',
      'show only nodes without a successful run for this long, such as 1d',
      parsePositiveDuration,
    ),
    option('--forget <node>', 'delete the record of this node', parseNode),
    ...lastOptions('print as JSON'),
  ]);
  command.addHelpText('after', HISTORY_HELP);
  command.action((named: string | undefined) => {
    const values = withEnvironment(command, env);
    const group = groupOfLine(command, named);
    const { prefix, json, silentFor, forget } = values as Values & HistoryValues;
    if (silentFor !== undefined && forget !== undefined)
      throw usage('--silent-for and --forget exclude each other');
    const options: HistoryRequest = {
      prefix,
      json,
      ...(group !== undefined && { group }),
      ...(silentFor !== undefined && { silentForMs: silentFor }),
      ...(forget !== undefined && { forget }),
    };
    done({ common: toCommon(values), options: Object.freeze(options) });
  });
}

const HISTORY_HELP = `
A node is listed from the end of its first run until --forget. --forget deletes the record in the named group alone, not in
the groups below it; without a group, in all. 'runlock forget' deletes everything that an unused group has left.

Exit codes: 0; with --silent-for 1 if there are such nodes, 3 if no run is recorded (is the group's name correct?); 64
wrong usage; 69 Consul unreachable; 74 stdout could not be written; 77 Consul denied access; 78 bad configuration.

Examples:
  runlock history prod/web
  runlock history --silent-for 1d
  runlock history prod/web --forget web07`;

interface HistoryValues {
  prefix: string;
  json: boolean;
  silentFor?: number;
  forget?: string;
}
