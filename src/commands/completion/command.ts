/** `runlock completion`: its options. */
import { Argument } from 'commander';
import type { Command } from 'commander';
import { register } from '../../cli/command.ts';
import type { Defining } from '../../cli/command.ts';
import { addOptions, commonOptions, toCommon, withEnvironment } from '../../cli/option.ts';
import type { Platform } from '../platform.ts';
import type { CompletionAsked } from './run.ts';

const SHELLS = ['bash', 'zsh', 'fish'] as const;
type Shell = (typeof SHELLS)[number];

export const completion = register({
  name: 'completion',
  config: { wrong: 'ignore' },
  define,
  run: async (asked: CompletionAsked, platform: Platform) => (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: CompletionAsked) => void): void {
  const command = program
    .command('completion')
    .description('print the completion script for a shell')
    .addArgument(new Argument('<shell>', 'shell to complete in').choices(SHELLS));
  addOptions(command, commonOptions());
  command.addHelpText('after', COMPLETION_HELP);
  command.action((shell: Shell) => {
    done({
      common: toCommon(withEnvironment(command, env)),
      options: Object.freeze({ shell }),
    });
  });
}

const COMPLETION_HELP = `
Completes commands, options and their values, and the groups and nodes that are in Consul at that moment.

Examples:
  source <(runlock completion bash)         # in ~/.bashrc
  source <(runlock completion zsh)          # in ~/.zshrc, after compinit
  runlock completion fish | source          # in ~/.config/fish/config.fish
  runlock completion bash > /etc/bash_completion.d/runlock`;
