/** The command that a refused release suggests for after the check. */
import type { Claim } from '../../lock/records.ts';
import { hint } from '../../text/suggested-command.ts';
import type { Target } from './released.ts';

export function forced(
  { options: { prefix, group } }: Pick<Target, 'options'>,
  { node }: Pick<Claim, 'node'>,
): string {
  return hint(prefix, 'release', group, '--owner', node, '--force');
}
