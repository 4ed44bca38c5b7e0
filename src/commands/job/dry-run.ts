/** `--dry-run`: what each node would do, and what it would wait for. Writes nothing. */
import { RunlockError, exitStatus } from '../../errors.ts';
import { isWaitedFor, obstacleCode, obstacleText } from '../../jobs/resolve.ts';
import type { Obstacle } from '../../jobs/resolve.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import type { ConsulWays } from '../with-consul.ts';
import type { Asking, Found } from './prepare.ts';

export async function printDryRun(
  _ways: ConsulWays,
  { asking, found }: { readonly asking: Asking; readonly found: Found },
  platform: Platform,
): Promise<number> {
  const { wish, resolved } = found;
  const nodes = resolved.map(({ node, groups, obstacles, pausedSince }) => ({
    node,
    ok: obstacles.length === 0,
    groups,
    ...(pausedSince !== undefined && { pausedSince }),
    ...(obstacles.length > 0 && { why: obstacles.map((each) => obstacleText(each, wish)) }),
  }));
  const { json, task } = asking;
  const lines = nodes.map(({ node, groups, why, pausedSince }) =>
    why
      ? `${node}: would not take it: ${why.join('; ')}`
      : `${node}: would take ${task}, in ${groups.join(' and ')}${pausedSince === undefined ? '' : ', once its agent is resumed: it is paused'}`,
  );
  const data = { kind: 'dry-run', task, principal: wish.principal, nodes };
  await print(platform, { json, data, text: () => `${lines.join('\n')}\n`, isProse: true });
  const [first] = resolved.filter((each) => !isWaitedFor(wish, each)).flatMap(({ obstacles }) => obstacles);
  return first ? exitOf(first) : 0;
}

const exitOf = (obstacle: Obstacle): number => exitStatus(new RunlockError(obstacleCode(obstacle), ''));
