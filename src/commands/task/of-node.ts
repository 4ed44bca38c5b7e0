/** `runlock task list --node`: the tasks of another node, as its agent says. */
import type { Asked } from '../../cli/command.ts';
import { FIRST_CONTACT } from '../../consul/consul.ts';
import { RunlockError, exitStatusOf } from '../../errors.ts';
import { readAgents } from '../../jobs/read-agents.ts';
import { faultTexts, taskTable } from '../../output/node.ts';
import { hint } from '../../text/suggested-command.ts';
import { visible } from '../../text/visible.ts';
import { wrapLines } from '../../text/wrap.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { withConsul } from '../with-consul.ts';

interface OfNode {
  readonly prefix: string;
  readonly node: string;
  readonly json: boolean;
}

export function listOf({ common, options }: Asked<OfNode>, platform: Platform): Promise<number> {
  const { prefix, node, json } = options;
  return withConsul({ common }, platform, async ({ consul, deps: { clock }, signal }) => {
    const found = await readAgents(consul, { prefix, nodes: [node] }, { ...FIRST_CONTACT, signal });
    const seen = found.get(node);
    if (seen?.kind === 'unreadable') throw new RunlockError('incompatible', seen.why);
    if (seen?.kind !== 'there')
      throw new RunlockError(
        'config',
        `no runlock agent is running on ${node}, so its tasks are not known; see '${hint(prefix, 'status', '--node', node)}'`,
      );
    const { tasks, faults = [], moreFaults } = seen.document;
    const skipped = faultTexts(seen.document);
    await print(platform, {
      json,
      data: { prefix, node, tasks, faults, ...(moreFaults !== undefined && { moreFaults }) },
      text: (output) => {
        const table = taskTable(tasks, { ...output, now: clock.now() });
        const lines = [
          ...(table.length === 0 ? [`${node} has no tasks`] : table),
          ...skipped.flatMap((each) =>
            wrapLines(visible(`skipped ${each}`), output.sentenceColumns, { hang: 2 }),
          ),
        ];
        return `${lines.join('\n')}\n`;
      },
    });
    return skipped.length > 0 ? exitStatusOf('config') : 0;
  });
}
