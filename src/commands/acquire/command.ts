/** `runlock acquire`: its options. */
import type { Command } from 'commander';
import type { AcquireOptions } from './acquire.ts';
import { parseGroup, parseHold, usage } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Condition } from '../../conditions/parse.ts';
import { conditionsOption } from '../condition-option.ts';
import type { Defining } from '../../cli/command.ts';
import {
  addOptions,
  checked,
  groupOfLine,
  groupsOption,
  lastOptions,
  oneGroup,
  option,
  ownerOptions,
  slotOptions,
  toCommon,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Platform } from '../platform.ts';
import type { AcquireAsked } from './run.ts';

export const acquire = register({
  name: 'acquire',
  define,
  run: async (asked: AcquireAsked, platform: Platform) => (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: AcquireAsked) => void): void {
  const command = program
    .command('acquire')
    .description("wait for a slot of the group and hold it until 'runlock release'")
    .argument('[group]', 'group to lock (default: "default")', checked(parseGroup, 'group'));
  addOptions(command, [
    groupsOption('group to lock', 'default'),
    ...slotOptions(),
    option(
      '--hold <duration|forever>',
      'how long to hold the slot if it is not released',
      parseHeldFor,
      'forever',
    ),
    ...ownerOptions(),
    conditionsOption(
      '--when <condition>',
      "condition to wait for, without a slot, before the slot is held; repeat for several (see 'runlock wait')",
    ),
    ...lastOptions('print the result as JSON'),
  ]);
  command.addHelpText('after', ACQUIRE_HELP);
  command.action((named: string | undefined) => {
    const values = withEnvironment(command, env);
    const { conflictExitCode, sessionTtl, json, ...rest } = values as Values & AcquireValues;
    const { group, slots, wait, hold, node, prefix, when } = rest;
    const options = {
      prefix,
      group: groupOfLine(command, named) ?? oneGroup('acquire', group),
      slots,
      wait,
      hold,
      json,
      sessionTtlMs: sessionTtl,
      ...(node !== undefined && { node }),
      ...(when && { when }),
    };
    done({ common: toCommon(values), options: Object.freeze(options), conflictExitCode });
  });
}

function parseHeldFor(text: string): AcquireOptions['hold'] {
  const hold = parseHold(text);
  if (hold !== 'none') return hold;
  throw usage("would hold nothing; use 'forever' or a duration");
}

const ACQUIRE_HELP = `
No process stays behind. The node holds the slot until 'runlock release', until an operator runs 'runlock release --owner',
or until --hold expires. An expired hold stops nothing that is running, so choose --hold longer than your longest run.
Repeating acquire is safe: it succeeds at once, and restarts --hold. --when is then not checked again.

Exit codes: 0 held; 64 wrong usage; 69 Consul unreachable; 74 held, but stdout could not be written; 75 busy (no slot
within --wait, a condition of --when not met, the group frozen, this node already running or queued, or another host holding a slot as this node); 77
Consul denied access; 78 bad configuration; 79 evicted before the slot was held; 128+n killed by signal n while waiting.

Examples:
  runlock acquire prod/web -w 30m
  runlock release prod/web                     # the work succeeded
  runlock release prod/web --failed            # the work failed: keep the slot`;

interface AcquireValues {
  group: readonly string[];
  slots: number;
  wait: number | 'forever';
  hold: AcquireOptions['hold'];
  conflictExitCode: number;
  node?: string;
  when?: readonly Condition[];
  sessionTtl: number;
  json: boolean;
  prefix: string;
}
