/** `runlock __complete`, which the completion scripts call. */
import type { Command } from 'commander';
import { register } from '../../cli/command.ts';
import type { Asked, Defining, Env } from '../../cli/command.ts';
import { addOptions, groupsOption, lastOptions, toCommon, withEnvironment } from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import { isRunlockError } from '../../errors.ts';
import type { Platform } from '../platform.ts';
import type { CompleteOptions } from './complete.ts';
import { describeProgram } from './describe.ts';

export const complete = register({
  name: '__complete',
  config: { wrong: 'ignore' },
  define,
  run: async (asked: Asked<CompleteOptions>, platform: Platform) =>
    (await import('./run.ts')).run(asked, platform),
});

function define(
  program: Command,
  { env, tree }: Defining,
  done: (asked: Asked<CompleteOptions>) => void,
): void {
  const command = program.command('__complete', { hidden: true }).argument('[words...]').passThroughOptions();
  addOptions(command, [groupsOption('as for exec', 'default'), ...lastOptions()]);
  command.action(async (words: string[]) => {
    const values = settings(command, env);
    const { prefix, group } = values as Values & { prefix: string; group: readonly string[] };
    const options = { words, prefix, groups: group, ...describeProgram(await tree()) };
    done({ common: toCommon(values), options: Object.freeze(options) });
  });
}

/** Ignores a wrong environment while the user types; the command reports it when it runs. */
function settings(command: Command, env: Env): Values {
  try {
    return withEnvironment(command, env);
  } catch (error) {
    if (!isRunlockError(error)) throw error;
    return command.opts();
  }
}
