/** `runlock release`: its options. */
import type { Command } from 'commander';
import { parseFlag, parseGroup, parseNode, wholeNumber } from '../options.ts';
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

export function addRelease(program: Command, { env }: Context, done: Done): void {
  const command = program
    .command('release')
    .description("clear a claim that keeps a group: this node's own, or as an operator another's")
    .argument('[group]', 'the group (default: "default")', checked(parseGroup));
  addOptions(command, [
    option('-g, --group <path>', 'the group, as for exec', parseGroup, 'default'),
    option('--owner <node>', "whose claim (default: this agent's node)", parseNode),
    option('--slot <i>', 'only the claim of this slot', wholeNumber(0, 100_000)),
    option('--force', 'also a running one: its command is killed first', parseFlag, false),
    option('--node <name>', 'this node, as for exec', parseNode),
    option('--json', 'what was done, as JSON', parseFlag, false),
    prefixOption(),
    ...commonOptions(),
  ]);
  command.action((named: string | undefined) => {
    const values = withEnvironment(command, env);
    const { prefix, json, group, owner, node, slot, force } = values as Values & ReleaseValues;
    const whose = owner ?? node;
    const options = {
      prefix,
      json,
      force,
      group: named ?? group,
      ...(whose !== undefined && { owner: whose }),
      ...(slot !== undefined && { slot }),
    };
    done({ kind: 'release', common: toCommon(values), options: Object.freeze(options) });
  });
}

interface ReleaseValues {
  prefix: string;
  json: boolean;
  group: string;
  owner?: string;
  node?: string;
  slot?: number;
  force: boolean;
}
