/** Reading a command line by all the commands that there are, without running one. */
import type { Asked, Context } from '../../src/cli/command.ts';
import { parse } from '../../src/cli/parse.ts';
import type { ConfigAsked } from '../../src/commands/config/run.ts';
import type { ExecAsked } from '../../src/commands/exec/run.ts';
import type { Platform } from '../../src/commands/platform.ts';
import { commands } from '../../src/commands/registry.ts';
import type { ReleaseAsked } from '../../src/commands/release/run.ts';
import type { StatusRequest } from '../../src/commands/status/request.ts';

export interface Kinds {
  readonly exec: ExecAsked;
  readonly release: ReleaseAsked;
  readonly status: Asked<StatusRequest>;
  readonly config: ConfigAsked;
}

/** What the line asks for, and of which command. */
export async function askedBy(
  argv: readonly string[],
  context: Context,
): Promise<Partial<Asked> & { readonly kind: string }> {
  const { kind, asked } = await parse(argv, commands, context);
  return { kind, ...asked };
}

/** What the line asks of this command. Throws where it asks for something else. */
export async function askedOf<Kind extends keyof Kinds>(
  wanted: Kind,
  argv: readonly string[],
  context: Context,
): Promise<Kinds[Kind] & { readonly kind: Kind }> {
  const { kind, ...asked } = await askedBy(argv, context);
  if (kind !== wanted) throw new Error(`${argv.join(' ')} is ${kind}`);
  return { kind: wanted, ...(asked as Kinds[Kind]) };
}

/** What a line prints that asks for nothing but a text: help, or the version. */
export async function printedBy(argv: readonly string[], context: Context): Promise<string> {
  const { kind, run } = await parse(argv, commands, context);
  if (kind !== 'help') throw new Error(`${argv.join(' ')} is ${kind}`);
  let text = '';
  const write = (part: string) => {
    text += part;
    return Promise.resolve();
  };
  await run({ write } as unknown as Platform);
  return text;
}
