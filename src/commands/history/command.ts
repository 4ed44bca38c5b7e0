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
    .description("each node's last run, the longest silent first")
    .argument('[group]', 'only this group and those below it (default: all)', checked(parseGroup, 'group'));
  addOptions(command, [
    groupsOption('the same, as for exec'),
    option(
      '--silent-for <duration>',
      'only nodes without a good run for this long, such as 1d',
      parsePositiveDuration,
    ),
    option('--forget <node>', "delete what is known of this node's last run", parseNode),
    ...lastOptions('the same data as JSON'),
  ]);
  command.addHelpText('after', HISTORY_HELP);
  command.action((named: string | undefined) => {
    const values = withEnvironment(command, env);
    const group = groupOfLine(command, named);
    const { prefix, json, silentFor, forget } = values as Values & HistoryValues;
    if (silentFor !== undefined && forget !== undefined)
      throw usage('--silent-for looks and --forget deletes; give one of them');
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
A good run is one that succeeded. A node is known from its first run that ended until --forget, which forgets it in the
named group alone, not in those below it; without a group in all. 'runlock forget' does so for a whole unused group.

Exit codes: 0; with --silent-for 1 if there are such nodes, 3 if no run is known there at all (a wrong name?); 64 wrong
usage; 69 Consul not reachable; 74 stdout could not be written; 77 Consul refused; 78 bad configuration.

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
