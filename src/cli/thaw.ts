/** `runlock thaw`: its options. */
import type { Command } from 'commander';
import { parseFlag } from './values.ts';
import { parseGroupOrRoot } from './freeze.ts';
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

export function addThaw(program: Command, { env }: Context, done: Done): void {
  const command = program
    .command('thaw')
    .description('end the freeze of a group')
    .argument('<group>', 'the group that was frozen; / for every group', checked(parseGroupOrRoot));
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
    done({ kind: 'thaw', common: toCommon(values), options: Object.freeze({ prefix, at, json }) });
  });
}
