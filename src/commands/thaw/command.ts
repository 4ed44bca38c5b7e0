/** `runlock thaw`: its options. */
import type { Command } from 'commander';
import { parseFlag, parseGroupOrRoot } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Defining } from '../../cli/command.ts';
import {
  addOptions,
  checked,
  commonOptions,
  option,
  prefixOption,
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
    .argument('<group>', 'the group that was frozen; / for every group', checked(parseGroupOrRoot, 'group'));
  addOptions(command, [
    option('--json', 'what was done, as JSON', parseFlag, false),
    prefixOption(),
    ...commonOptions(),
  ]);
  command.addHelpText(
    'after',
    `
Examples:
  runlock thaw prod/web
  runlock thaw /`,
  );
  command.action((at: string) => {
    const values = withEnvironment(command, env);
    const { prefix, json } = values as Values & { prefix: string; json: boolean };
    done({ common: toCommon(values), options: Object.freeze({ prefix, at, json }) });
  });
}
