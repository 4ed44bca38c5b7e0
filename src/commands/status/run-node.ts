/** `runlock status --node`: one node → stdout. */
import type { Asked } from '../../cli/command.ts';
import { renderNode } from '../../output/node.ts';
import type { Output } from '../../platform/terminal.ts';
import { readNode } from '../../view/read-node.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import type { StatusRequest } from './request.ts';

export function runNode(
  { common, options: { prefix, groups, json } }: Asked<StatusRequest>,
  node: string,
  platform: Platform,
): Promise<number> {
  return withConsul({ common }, platform, async ({ consul, deps: { clock }, signal }) => {
    const report = await readNode(consul, { prefix, groups, node, now: clock.now(), signal });
    const text = (output: Output) => renderNode(report, { ...output, now: clock.now() });
    await print(platform, { json, data: report, text });
    return 0;
  });
}
