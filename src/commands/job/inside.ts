/** A job that is waited for inside a run: it may need that very run to end. */
import { isLive } from '../../conditions/is-live.ts';
import { insideOf, runOf } from '../../conditions/own-run.ts';
import type { OwnRun } from '../../conditions/own-run.ts';
import { RunlockError } from '../../errors.ts';
import type { ConsulWays } from '../with-consul.ts';
import type { Platform } from '../platform.ts';

/** What the targets of a job need. */
export interface Needs {
  readonly prefix: string;
  readonly nodes: readonly string[];
  /** Of their tasks. */
  readonly groups: readonly string[];
}

/**
 * Warns if this wait is inside a run. @throws RunlockError `usage`: a target needs what that run holds until its end.
 */
export async function checkInside(
  { consul, deps, signal }: ConsulWays,
  needs: Needs,
  { env }: Pick<Platform, 'env'>,
): Promise<void> {
  const inside = runOf(env);
  if (!inside || !(await isLive({ consul, clock: deps.clock, prefix: needs.prefix }, inside, signal))) return;
  const held = heldOf(inside, needs);
  if (held !== undefined)
    throw new RunlockError(
      'usage',
      `this is inside a run that the job would wait for, and that would wait for the job (the run holds ${held}); leave out --watch, or start the job outside of 'runlock exec'`,
    );
  deps.emit({ event: 'wait-in-run', ...insideOf(inside) });
}

/** What the run holds that a target needs. Undefined: nothing. Pure. */
export function heldOf({ node, groups }: OwnRun, needs: Omit<Needs, 'prefix'>): string | undefined {
  const group = needs.groups.find((each) => groups.includes(each));
  if (group !== undefined) return `a slot of ${group}, which a target needs`;
  return needs.nodes.includes(node) ? `the turn of ${node}, where one task runs at a time` : undefined;
}
