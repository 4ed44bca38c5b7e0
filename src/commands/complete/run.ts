/** `runlock __complete`: the candidates → stdout. */
import type { Asked } from '../../cli/command.ts';
import { assertNever } from '../../errors.ts';
import type { Platform } from '../platform.ts';
import { connectTo } from '../with-consul.ts';
import { complete } from './complete.ts';
import type { CompleteOptions, Completion } from './complete.ts';

export async function run({ options }: Asked<CompleteOptions>, platform: Platform): Promise<number> {
  const silent = () => undefined;
  const found = await complete(
    { clock: platform.deps.clock, connect: () => connectTo(platform, silent) },
    options,
  );
  await platform.write(renderCompletion(found));
  return 0;
}

/** The format that the scripts in src/commands/completion read: lines of `value TAB about`, or one line that starts with a colon. */
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
