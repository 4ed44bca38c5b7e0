/** `runlock release`: its options. */
import type { Command } from 'commander';
import { parseFlag, parseGroup, parseNode, usage, wholeNumber } from '../../cli/values.ts';
import { agentOption } from '../gate-flags.ts';
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
  toCommon,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Platform } from '../platform.ts';
import type { ReleaseAsked } from './run.ts';

export const release = register({
  name: 'release',
  define,
  run: async (asked: ReleaseAsked, platform: Platform) => (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: ReleaseAsked) => void): void {
  const command = program
    .command('release')
    .description('release a slot held by acquire, or clear a claim (also of another node)')
    .argument('[group]', 'group of the slot (default: "default")', checked(parseGroup, 'group'));
  addOptions(command, [
    groupsOption('group of the slot', 'default'),
    option('--owner <node>', "node whose claim to clear (default: the agent's node)", parseNode),
    option('--slot <i>', 'clear only the claim on this slot', wholeNumber(0, 100_000)),
    option(
      '--force',
      'also end a live run (its command is killed), clear a claim whose command may still be running, or remove a run from the queue',
      parseFlag,
      false,
    ),
    option('--node <name>', 'node name of this node, as for exec', parseNode),
    option('--failed', 'the work under acquire failed: keep the slot', parseFlag, false),
    option('--exit-code <n>', 'with --failed: exit code to record', wholeNumber(1, 255)),
    agentOption(),
    ...lastOptions('print the result as JSON'),
  ]);
  command.addHelpText('after', RELEASE_HELP);
  command.action((named: string | undefined) => {
    const values = withEnvironment(command, env);
    const { prefix, json, group, owner, node, agent, slot, force, failed, exitCode } = values as Values &
      ReleaseValues;
    checkFailed({ owner, force, failed, exitCode });
    const whose = owner ?? node;
    const options = {
      prefix,
      json,
      force,
      group: groupOfLine(command, named) ?? oneGroup('release', group),
      ...(whose !== undefined && { owner: whose }),
      ...(node !== undefined && { node }),
      ...(failed && { failed: exitCode === undefined ? {} : { exitCode } }),
      ...(slot !== undefined && { slot }),
    };
    done({
      common: toCommon(values),
      options: Object.freeze(options),
      ...(agent !== undefined && { agent }),
    });
  });
}

const RELEASE_HELP = `
Exit codes: 0 released, cleared, or nothing to release; 64 wrong usage; 69 Consul unreachable; 74 done, but stdout could
not be written; 75 nothing was done (below); 77 Consul denied access; 78 bad configuration.

Nothing is done (75) if:
  - the run is waiting in the queue, is alive, or may still be running, and --force was not given
  - the run is waiting without a slot
  - a session that belongs to no run holds the slot's lock

Examples:
  runlock release prod/web                         # release what this node holds by acquire
  runlock release prod/web --owner web01           # clear the claim of a failed run
  runlock release prod/web --owner web01 --force   # end a live run (its command is killed first),
                                                   # or remove a waiting run from the queue

Before it clears a claim whose command may still be running (a vanished run, or a slot that acquire holds on another node),
release asks for confirmation. Without a terminal it needs --force instead.

A run that waits without a slot, for --when or its gate, can't be removed from here, not even with --force: end its runlock on
its node. release says what the run is waiting for.`;

/** Only the node itself can say that its work under `acquire` failed. */
function checkFailed({ owner, force, failed, exitCode }: Partial<ReleaseValues>): void {
  if (failed && owner !== undefined)
    throw usage(
      '--failed and --owner exclude each other: --failed is for a slot that this node acquired, --owner clears a claim',
    );
  if (failed && force)
    throw usage('--failed and --force exclude each other: --failed keeps the slot, --force ends the run');
  if (!failed && exitCode !== undefined) throw usage('--exit-code needs --failed');
}

interface ReleaseValues {
  prefix: string;
  json: boolean;
  group: readonly string[];
  owner?: string | undefined;
  node?: string;
  agent?: string;
  slot?: number;
  force: boolean;
  failed: boolean;
  exitCode?: number | undefined;
}
