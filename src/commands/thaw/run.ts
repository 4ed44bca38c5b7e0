/** `runlock thaw`: what was done → stdout. */
import type { Asked } from '../../cli/command.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import { describeThaw, thaw } from './thaw.ts';
import type { ThawOptions } from './thaw.ts';

export type ThawAsked = Asked<ThawOptions & { readonly json: boolean }>;

export function run({ common, options }: ThawAsked, platform: Platform): Promise<number> {
  return withConsul({ common }, platform, async ({ consul, deps, signal }) => {
    const result = await thaw({ consul, deps }, options, signal);
    for (const problem of result.problems) {
      deps.emit({ event: 'freeze-unknown', detail: { fault: problem } });
    }
    const text = () => describeThaw(result, { ...options, now: deps.clock.now() });
    await print(platform, { json: options.json, data: result, text, isProse: true });
    return 0;
  });
}
