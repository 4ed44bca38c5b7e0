/** `runlock freeze`: its options. */
import type { Command } from 'commander';
import { parseFlag, parseGroup, parsePositiveDuration, usage } from './values.ts';
import type { Context, Done } from './invocation.ts';
import {
  addOptions,
  checked,
  commonOptions,
  option,
  prefixOption,
  toCommon,
  withEnvironment,
} from './option.ts';
import type { Values } from './option.ts';

/** A group as it is stored: `/`, the root, is ''. */
export function parseGroupOrRoot(text: string): string {
  return text === '/' ? '' : parseGroup(text);
}

/** Far more than fits on a line. */
const LONGEST_REASON = 500;

/** One line, for everyone who asks why a group stands still. */
export function parseReason(text: string): string {
  const reason = text.trim();
  if (reason === '')
    throw usage('an empty reason helps nobody; say why, for those who find the group frozen');
  if (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(reason))
    throw usage('a reason is one line, without line breaks or other control characters');
  if (reason.length > LONGEST_REASON)
    throw usage(`this reason has ${reason.length} characters; ${LONGEST_REASON} are allowed`);
  return reason;
}

export function addFreeze(program: Command, { env }: Context, done: Done): void {
  const command = program
    .command('freeze')
    .description('start no new run in a group and the groups below it; runs under way finish')
    .argument('<group>', 'the group; / stops every group', checked(parseGroupOrRoot));
  addOptions(command, [
    option('--reason <text>', 'why, on one line; needed', parseReason),
    option('--for <duration>', 'how long (default: until it is thawed)', parsePositiveDuration),
    option('--json', 'what was done, as JSON', parseFlag, false),
    prefixOption(),
    ...commonOptions(),
  ]);
  command.addHelpText('after', FREEZE_HELP);
  command.action((at: string) => {
    const values = withEnvironment(command, env);
    const { prefix, json, reason, for: forMs } = values as Values & FreezeValues;
    if (reason === undefined) throw usage("say why with --reason TEXT; see 'runlock freeze --help'");
    const options = { prefix, at, reason, json, ...(forMs !== undefined && { forMs }) };
    done({ kind: 'freeze', common: toCommon(values), options: Object.freeze(options) });
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
