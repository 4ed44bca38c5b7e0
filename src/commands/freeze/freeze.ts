/** `runlock freeze`: stops a group, and every group below it, from starting new runs. */
import type { Consul } from '../../consul/consul.ts';
import type { Deps } from '../../platform/deps.ts';
import { hint } from '../../text/suggested-command.ts';
import { formatAge, momentText } from '../../text/age.ts';
import { visible } from '../../text/visible.ts';
import type { FreezeView } from '../../view/report.ts';
import { leftOf } from '../../lock/records.ts';
import { changeFreeze, readFreeze } from '../../lock/freeze.ts';
import { freezeKeys } from '../../lock/keys.ts';
import type { Freeze } from '../../lock/records.ts';
import { freeze as freezing } from '../../lock/transactions.ts';

export interface FreezeOptions {
  readonly prefix: string;
  /** The group; '' for the root, which stops every group. */
  readonly at: string;
  /** One line. */
  readonly reason: string;
  /** Milliseconds; undefined: until it is thawed. */
  readonly forMs?: number;
  /** The person who asks: `user@host`. */
  readonly by: string;
}

export interface FreezeResult {
  readonly kind: 'frozen';
  readonly freeze: FreezeView;
  /** The previous freeze, if it had not ended. */
  readonly replaced?: FreezeView;
}

/**
 * Freezes a group. Replaces an existing freeze atomically, so that the group is never without one.
 * @throws RunlockError `incompatible`: this version can't read the existing freeze.
 */
export async function freeze(
  { consul, deps }: { consul: Consul; deps: Deps },
  { prefix, at, reason, forMs, by }: FreezeOptions,
  signal: AbortSignal,
): Promise<FreezeResult> {
  const [key = ''] = freezeKeys(prefix, at);
  const { clock } = deps;
  const record: Freeze = {
    by,
    reason,
    since: new Date(clock.now()).toISOString(),
    ...(forMs !== undefined && { until: new Date(clock.latest() + forMs).toISOString() }),
  };
  const target = { consul, deps, prefix, key, at, signal };
  const before = await changeFreeze(target, {
    look: () => readFreeze(target, 'write'),
    steps: (seen) => freezing(key, record, seen?.index ?? 0),
    // The answer to the write was lost, but the write had taken effect.
    isDone: (now) => now !== undefined && isSame(now.freeze, record),
  });
  const replaced = before && leftOf(before.freeze, clock.earliest()) > 0 ? before.freeze : undefined;
  return {
    kind: 'frozen',
    freeze: toView(at, record),
    ...(replaced && { replaced: toView(at, replaced) }),
  };
}

function isSame(one: Freeze, other: Freeze): boolean {
  return (
    one.by === other.by &&
    one.reason === other.reason &&
    one.since === other.since &&
    one.until === other.until
  );
}

export function toView(at: string, { by, reason, since, until }: Freeze): FreezeView {
  return { at, by, reason, since, ...(until !== undefined && { until }) };
}

/** The group as on the command line. */
export const nameOf = (at: string) => (at === '' ? '/' : at);

export interface Describing {
  readonly prefix: string;
  /** Wall-clock milliseconds. */
  readonly now: number;
}

/** What was done, for people. */
export function describeFreeze({ freeze: set, replaced }: FreezeResult, { prefix, now }: Describing): string {
  const name = nameOf(set.at);
  const where = set.at === '' ? 'in any group' : `in ${set.at} or below it`;
  const end = untilText(set, Date.parse(set.since));
  const lines = [`froze ${name} ${end}: ${set.reason}`];
  if (replaced) {
    const age = formatAge(now - Date.parse(replaced.since));
    lines.push(
      `replaced the freeze set by ${replaced.by} ${age} ago ${untilText(replaced, now)}: ${replaced.reason}`,
    );
  }
  lines.push(`no new runs ${where}; active runs finish; to thaw: '${hint(prefix, 'thaw', name)}'`);
  return lines.map((line) => `${visible(line)}\n`).join('');
}

function untilText({ until }: FreezeView, now: number): string {
  return until === undefined ? 'until thawed' : momentText(until, now);
}
