/** `runlock freeze`: its options. */
import type { Command } from 'commander';
import { parseGroupOrRoot, parseGroupsOrRoot, parsePositiveDuration, usage } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Defining } from '../../cli/command.ts';
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
import type { FreezeAsked } from './run.ts';

/** Far more than fits on a line. */
const LONGEST_REASON = 500;

/** One line, for everyone who asks why a group stands still. */
export function parseReason(text: string): string {
  const reason = text.trim();
  if (reason === '') throw usage('empty; say why, for those who find the group frozen');
  if (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(reason))
    throw usage('not one line; leave out line breaks and other control characters');
  if (reason.length > LONGEST_REASON)
    throw usage(`too long (${reason.length} characters); ${LONGEST_REASON} are allowed`);
  return reason;
}

export const freeze = register({
  name: 'freeze',
  define,
  run: async (asked: FreezeAsked, platform: Platform) => (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: FreezeAsked) => void): void {
  const command = program
    .command('freeze')
    .description('start no new run in a group and the groups below it; runs under way finish')
    .argument('[group]', 'the group; / stops every group', checked(parseGroupOrRoot, 'group'));
  addOptions(command, [
    groupsOption('the same, as for exec', undefined, parseGroupsOrRoot),
    option('--reason <text>', 'why, on one line; needed', parseReason),
    option('--for <duration>', 'how long (default: until it is thawed)', parsePositiveDuration),
    ...lastOptions('what was done, as JSON'),
  ]);
  command.addHelpText('after', FREEZE_HELP);
  command.action((named: string | undefined) => {
    const values = withEnvironment(command, env);
    const at = groupOfLine(command, named);
    if (at === undefined) throw usage("missing <group>; see 'runlock freeze --help'");
    const { prefix, json, reason, for: forMs } = values as Values & FreezeValues;
    if (reason === undefined) throw usage("say why with --reason TEXT; see 'runlock freeze --help'");
    const options = { prefix, at, reason, json, ...(forMs !== undefined && { forMs }) };
    done({ common: toCommon(values), options: Object.freeze(options) });
  });
}

const FREEZE_HELP = `
Waiting runs wait on, in their order. A freeze that stands there is replaced.

Examples:
  runlock freeze prod/web --reason 'release day' --for 8h
  runlock freeze / --reason 'storage is being moved'
  runlock thaw prod/web`;

interface FreezeValues {
  prefix: string;
  json: boolean;
  reason?: string;
  for?: number;
}
