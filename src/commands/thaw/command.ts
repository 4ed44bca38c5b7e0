/** `runlock thaw`: its options. */
import type { Command } from 'commander';
import { parseGroupOrRoot, parseGroupsOrRoot, usage } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Defining } from '../../cli/command.ts';
import {
  addOptions,
  checked,
  groupOfLine,
  groupsOption,
  lastOptions,
  toCommon,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Platform } from '../platform.ts';
import type { ThawAsked } from './run.ts';

export const thaw = register({
  name: 'thaw',
  define,
  run: async (asked: ThawAsked, platform: Platform) => (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: ThawAsked) => void): void {
  const command = program
    .command('thaw')
    .description('end the freeze of a group')
    .argument(
      '[group]',
      'group to thaw; / for the freeze of every group',
      checked(parseGroupOrRoot, 'group'),
    );
  addOptions(command, [
    groupsOption('group to thaw, as for exec', undefined, parseGroupsOrRoot),
    ...lastOptions('print the result as JSON'),
  ]);
  command.addHelpText(
    'after',
    `
Examples:
  runlock thaw prod/web
  runlock thaw /`,
  );
  command.action((named: string | undefined) => {
    const values = withEnvironment(command, env);
    const at = groupOfLine(command, named);
    if (at === undefined) throw usage("missing <group>; see 'runlock thaw --help'");
    const { prefix, json } = values as Values & { prefix: string; json: boolean };
    done({ common: toCommon(values), options: Object.freeze({ prefix, at, json }) });
  });
}
