/** The result of `runlock forget`, as text and as the shape of `--json`. */
import { visible } from '../text/visible.ts';

/** What `forget --json` prints. */
export interface ForgottenGroup {
  readonly v: 1;
  readonly prefix: string;
  readonly group: string;
  /** Nodes whose last run was recorded there, by name. */
  readonly forgotten: readonly string[];
  /** How many keys were deleted, including those of `forgotten`. */
  readonly keys: number;
  /** Groups below it, which stay. */
  readonly below: readonly string[];
}

const SHOWN = 5;

/** Ends with a line break. */
export function renderForgotten({ group, forgotten, keys, below }: ForgottenGroup): string {
  const runs = forgotten.length === 1 ? '1 node' : `${forgotten.length.toLocaleString('en-US')} nodes`;
  const others = keys - forgotten.length;
  const rest =
    others === 0 ? '' : ` and ${others.toLocaleString('en-US')} other ${others === 1 ? 'key' : 'keys'}`;
  const done =
    keys === 0
      ? `nothing is stored for ${group}; nothing was deleted`
      : `deleted ${group}: the last runs of ${runs}${rest}`;
  const more = below.length > SHOWN ? ` and ${(below.length - SHOWN).toLocaleString('en-US')} more` : '';
  const stay =
    below.length === 0 ? [] : [`kept the groups below ${group}: ${below.slice(0, SHOWN).join(', ')}${more}`];
  return [done, ...stay].map((line) => `${visible(line)}\n`).join('');
}
