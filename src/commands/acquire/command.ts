/** `runlock acquire`: its options. */
import type { Command } from 'commander';
import type { AcquireOptions } from './acquire.ts';
import { parseGroup, parseHold, usage } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
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
    .description('the first half of exec: wait for a slot of the group, and hold it until release')
    .argument('[group]', 'the group (default: "default")', checked(parseGroup, 'group'));
  addOptions(command, [
    groupsOption('the nodes that must not all change at once', 'default'),
    ...slotOptions(),
    option('--hold <duration|forever>', 'how long it is held without a release', parseHeldFor, 'forever'),
    ...ownerOptions(),
    ...lastOptions('what is held, as JSON'),
  ]);
  command.addHelpText('after', ACQUIRE_HELP);
  command.action((named: string | undefined) => {
    const values = withEnvironment(command, env);
    const { conflictExitCode, sessionTtl, json, ...rest } = values as Values & AcquireValues;
    const { group, slots, wait, hold, node, prefix } = rest;
    const options = {
      prefix,
      group: groupOfLine(command, named) ?? oneGroup('acquire', group),
      slots,
      wait,
      hold,
      json,
      sessionTtlMs: sessionTtl,
      ...(node !== undefined && { node }),
    };
    done({ common: toCommon(values), options: Object.freeze(options), conflictExitCode });
  });
}

function parseHeldFor(text: string): AcquireOptions['hold'] {
  const hold = parseHold(text);
  if (hold !== 'none') return hold;
  throw usage("holds nothing: no run is between acquire and release; write 'forever' or a duration");
}

const ACQUIRE_HELP = `
Nothing of it runs on: what is held is this node's until 'runlock release', an operator's 'runlock release --owner', or
the end of --hold, which ends nothing that runs: choose it longer than your longest run. Asking again is harmless: it
succeeds at once, and a --hold that ends begins anew.

Exit codes: 0 held; 64 wrong usage; 69 Consul not reachable; 74 held, but stdout could not be written; 75 busy (no slot
within --wait, frozen, this node runs or waits, or another machine holds a slot as this node); 77 Consul refused; 78 bad
configuration; 79 evicted before it was held; 128+n it died of signal n while it waited.

Examples:
  runlock acquire prod/web -w 30m
  runlock release prod/web                     # it went well
  runlock release prod/web --failed            # it failed: this node keeps the slot`;

interface AcquireValues {
  group: readonly string[];
  slots: number;
  wait: number | 'forever';
  hold: AcquireOptions['hold'];
  conflictExitCode: number;
  node?: string;
  sessionTtl: number;
  json: boolean;
  prefix: string;
}
