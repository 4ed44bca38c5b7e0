/** `runlock completion`, and `runlock __complete`, which the scripts that it prints call back. */
import { Argument } from 'commander';
import type { Command } from 'commander';
import { isRunlockError } from '../errors.ts';
import { describeProgram } from './describe.ts';
import type { Context, Done, Env } from './invocation.ts';
import {
  addOptions,
  commonOptions,
  groupsOption,
  prefixOption,
  toCommon,
  withEnvironment,
} from './option.ts';
import type { Values } from './option.ts';

const SHELLS = ['bash', 'zsh', 'fish'] as const;
type Shell = (typeof SHELLS)[number];

export function addCompletion(program: Command, { env }: Context, done: Done): void {
  const command = program
    .command('completion')
    .description('print the script that completes runlock in a shell')
    .addArgument(new Argument('<shell>', 'the shell').choices(SHELLS));
  addOptions(command, commonOptions());
  command.addHelpText('after', COMPLETION_HELP);
  command.action((shell: Shell) => {
    done({
      kind: 'completion',
      common: toCommon(withEnvironment(command, env)),
      options: Object.freeze({ shell }),
    });
  });
}

const COMPLETION_HELP = `
Commands, options and their values are completed, and groups and owners as they are in Consul at that moment.

Examples:
  source <(runlock completion bash)         # in ~/.bashrc
  source <(runlock completion zsh)          # in ~/.zshrc, after compinit
  runlock completion fish | source          # in ~/.config/fish/config.fish
  runlock completion bash > /etc/bash_completion.d/runlock`;

/** `tree` builds the whole command tree, of which a line that names a command has only that command. */
export function addComplete(program: Command, { env }: Context, { done, tree }: Effects): void {
  const command = program.command('__complete', { hidden: true }).argument('[words...]').passThroughOptions();
  addOptions(command, [groupsOption('as for exec', 'default'), prefixOption(), ...commonOptions()]);
  command.action((words: string[]) => {
    const values = settings(command, env);
    const { prefix, group } = values as Values & { prefix: string; group: readonly string[] };
    const options = { words, prefix, groups: group, ...describeProgram(tree()) };
    done({ kind: 'complete', common: toCommon(values), options: Object.freeze(options) });
  });
}

interface Effects {
  readonly done: Done;
  readonly tree: () => Command;
}

/** What is wrong with the environment is said when a command runs, not while it is typed. */
function settings(command: Command, env: Env): Values {
  try {
    return withEnvironment(command, env);
  } catch (error) {
    if (!isRunlockError(error)) throw error;
    return command.opts();
  }
}
