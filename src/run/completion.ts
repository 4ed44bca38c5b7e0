/** `runlock completion` and `runlock __complete`: the script, or the candidates → stdout. */
import type { Invocation } from '../cli/invocation.ts';
import type { Completion } from '../commands/complete.ts';
import { assertNever } from '../errors.ts';
import type { Platform } from '../commands/platform.ts';

export async function runCompletion(
  { options }: Extract<Invocation, { kind: 'completion' }>,
  platform: Platform,
): Promise<number> {
  await platform.write(await scriptFor(options.shell));
  return 0;
}

async function scriptFor(shell: Extract<Invocation, { kind: 'completion' }>['options']['shell']) {
  switch (shell) {
    case 'bash':
      return (await import('../commands/completion/bash.ts')).bash;
    case 'zsh':
      return (await import('../commands/completion/zsh.ts')).zsh;
    case 'fish':
      return (await import('../commands/completion/fish.ts')).fish;
    default:
      return assertNever(shell);
  }
}

export async function runComplete(
  { options }: Extract<Invocation, { kind: 'complete' }>,
  platform: Platform,
): Promise<number> {
  const { complete } = await import('../commands/complete.ts');
  const silent = () => undefined;
  const found = await complete(
    { clock: platform.deps.clock, connect: () => platform.connect(silent) },
    options,
  );
  await platform.write(renderCompletion(found));
  return 0;
}

/** What the scripts in src/commands/completion read: lines of `value TAB about`, or one line that starts with a colon. */
function renderCompletion(found: Completion): string {
  switch (found.kind) {
    case 'candidates':
      return found.candidates.map(({ value, about }) => `${value}\t${about}\n`).join('');
    case 'files':
      return ':files\n';
    case 'program':
      return `:program ${found.at}\n`;
    default:
      return assertNever(found);
  }
}
