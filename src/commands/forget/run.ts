/** `runlock forget`: what was done → stdout. */
import type { Asked } from '../../cli/command.ts';
import { renderForgotten } from '../../output/forget.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import { forget } from './forget.ts';
import type { ForgetOptions } from './forget.ts';

export type ForgetAsked = Asked<ForgetOptions & { readonly json: boolean }>;

export function run({ common, options }: ForgetAsked, platform: Platform): Promise<number> {
  return withConsul({ common }, platform, async ({ consul, deps, signal }) => {
    const confirm = (question: string) => platform.confirm(question);
    const report = await forget({ consul, deps, confirm }, options, signal);
    const text = () => renderForgotten(report);
    await print(platform, { json: options.json, data: report, text, isProse: true });
    return 0;
  });
}
