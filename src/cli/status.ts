/** `runlock status`: its options. */
import type { Command } from 'commander';
import { parseFlag, parseGroup } from '../options.ts';
import type { Context, Done } from './invocation.ts';
import {
  addOptions,
  collect,
  commonOptions,
  option,
  prefixOption,
  toCommon,
  withEnvironment,
} from './option.ts';
import type { Values } from './option.ts';

export function addStatus(program: Command, { env }: Context, done: Done): void {
  const command = program
    .command('status')
    .description('who holds, who waits, since when, and why a group stands still')
    .argument('[group...]', 'only these groups', collect(parseGroup), [] as string[]);
  addOptions(command, [
    option('--json', 'the same data as JSON', parseFlag, false),
    prefixOption(),
    ...commonOptions(),
  ]);
  command.action((groups: string[]) => {
    const values = withEnvironment(command, env);
    const { prefix, json } = values as Values & { prefix: string; json: boolean };
    done({ kind: 'status', common: toCommon(values), options: Object.freeze({ prefix, json, groups }) });
  });
}
