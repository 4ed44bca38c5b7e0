/** `runlock freeze`: what was done → stdout. */
import type { Asked } from '../../cli/command.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import { describeFreeze, freeze } from './freeze.ts';
import type { FreezeOptions } from './freeze.ts';

export type FreezeAsked = Asked<Omit<FreezeOptions, 'by'> & { readonly json: boolean }>;

export function run({ common, options }: FreezeAsked, platform: Platform): Promise<number> {
  return withConsul({ common }, platform, async ({ consul, deps, signal }) => {
    const result = await freeze({ consul, deps }, { ...options, by: platform.operator() }, signal);
    const text = () => describeFreeze(result, { ...options, now: deps.clock.now() });
    await print(platform, { json: options.json, data: result, text, isProse: true });
    return 0;
  });
}
