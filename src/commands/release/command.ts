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
    .description(
      "give back what acquire holds, or clear a claim that keeps a group: as an operator also another's",
    )
    .argument('[group]', 'the group (default: "default")', checked(parseGroup, 'group'));
  addOptions(command, [
    groupsOption('the group, as for exec', 'default'),
    option('--owner <node>', "whose claim (default: this agent's node)", parseNode),
    option('--slot <i>', 'only the claim of this slot', wholeNumber(0, 100_000)),
    option(
      '--force',
      'also a running one: its command is killed first; one that may still be at work; or one that waits',
      parseFlag,
      false,
    ),
    option('--node <name>', 'this node, as for exec', parseNode),
    option('--failed', 'what acquire holds: it failed, so this node keeps the slot', parseFlag, false),
    option('--exit-code <n>', 'with --failed: the code to show for it', wholeNumber(1, 255)),
    agentOption(),
    ...lastOptions('what was done, as JSON'),
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
Exit codes: 0 given back, cleared, or nothing to release; 64 wrong usage; 69 Consul not reachable; 74 done, but stdout could
not be written; 75 a run waits, is alive, or may still be at work, and --force was not given,
or a session that is no run's holds the slot's lock; 77 Consul refused; 78 bad configuration.

Examples:
  runlock release prod/web                         # what this node holds by acquire
  runlock release prod/web --owner web01           # clear the claim of a failed run
  runlock release prod/web --owner web01 --force   # end a run that is alive; its command is killed first.
                                                   # Or send one away that waits

On a terminal it asks before it clears a claim whose node may still be at work: a run that has vanished, or what acquire
holds on another node. Elsewhere that takes --force.`;

/** The second half is the node's own word on what it did itself. */
function checkFailed({ owner, force, failed, exitCode }: Partial<ReleaseValues>): void {
  if (failed && owner !== undefined)
    throw usage(
      '--failed is for what this node acquired itself; with --owner a claim is cleared, so leave one out',
    );
  if (failed && force) throw usage('--failed keeps a slot and --force ends a run; leave one out');
  if (!failed && exitCode !== undefined) throw usage('--exit-code says how it failed; give --failed too');
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
