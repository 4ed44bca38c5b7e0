/** `runlock completion`: the script → stdout. */
import type { Asked } from '../../cli/command.ts';
import { assertNever } from '../../errors.ts';
import type { Platform } from '../platform.ts';

type Shell = 'bash' | 'zsh' | 'fish';

export type CompletionAsked = Asked<{ readonly shell: Shell }>;

export async function run({ options }: CompletionAsked, platform: Platform): Promise<number> {
  await platform.write(await scriptFor(options.shell));
  return 0;
}

async function scriptFor(shell: Shell): Promise<string> {
  switch (shell) {
    case 'bash':
      return (await import('./bash.ts')).bash;
    case 'zsh':
      return (await import('./zsh.ts')).zsh;
    case 'fish':
      return (await import('./fish.ts')).fish;
    default:
      return assertNever(shell);
  }
}
