/** Why a run did not get a slot, in one line. Pure. */
import type { Deps, LogLevel } from '../../platform/deps.ts';
import { assertNever } from '../../errors.ts';
import { hint } from '../../text/suggested-command.ts';
import type { Acquired } from '../../lock/acquire.ts';
import type { Blocked } from '../../lock/grant.ts';
import { isTaken } from '../../lock/decide.ts';
import type { Slot } from '../../lock/slot.ts';
import { formatAge, momentText } from '../../text/age.ts';
import { endedText } from '../../text/ended.ts';

type Busy = Extract<Acquired, { kind: 'busy' }>;

interface When {
  readonly wait: number | 'forever';
  readonly nowMs: number;
}

/** `info` where it is nothing to mail about: this node already runs or waits. */
export function describeBusy({ context, why }: Busy, when: When): { level: LogLevel; message: string } {
  const { node } = context.run;
  const { group, root: prefix } = context.keys;
  switch (why.kind) {
    case 'same-node': {
      const since = formatAge(when.nowMs - Date.parse(why.since));
      return {
        level: 'info',
        message: `busy: ${node} already runs or waits in ${group} (pid ${why.pid}, since ${since})`,
      };
    }
    case 'elsewhere': {
      const since = formatAge(when.nowMs - Date.parse(why.since));
      const where = why.host ?? 'a host without a name';
      const release = hint(prefix, 'release', group, '--owner', node);
      if (why.holds !== undefined) {
        const message = `busy: another machine, ${where}, holds slot ${why.holds} of ${group} as ${node} by 'runlock acquire' (since ${since}). Wait until it is released there; or ask whoever works there, and clear it with '${release}'. If this is another node, give it its own name with --node`;
        return { level: 'warning', message };
      }
      const message = `busy: another machine, ${where}, runs or waits in ${group} as ${node} too (pid ${why.pid}, since ${since}). Wait until that run has ended; or look there that nothing runs any more, and clear it with '${release}', which asks first. If this is another node, give it its own name with --node`;
      return { level: 'warning', message };
    }
    case 'orphan': {
      const who =
        why.cgroup === undefined
          ? `pid ${why.pids.join(', ')}`
          : `in another pid namespace, in the cgroup ${why.cgroup}`;
      const message = `busy: an earlier run of ${node} in ${group} lost its runlock and its processes still run (${who}); let them end, or end them, and start again`;
      return { level: 'warning', message };
    }
    case 'another-user': {
      const release = hint(prefix, 'release', group, '--owner', node);
      const message = `busy: an earlier run of ${node} in ${group} lost its runlock; another user (uid ${why.uid}) had started it, so what still runs of it can't be seen; start again as that user or root, or, once nothing of it runs, clear it with '${release}', which asks first`;
      return { level: 'warning', message };
    }
    case 'held': {
      const since = formatAge(when.nowMs - Date.parse(why.owner.claim.since));
      const message = `busy: ${node} holds slot ${why.slot} of ${group} by 'runlock acquire' (since ${since}) until '${hint(prefix, 'release', group)}'`;
      return { level: 'warning', message };
    }
    case 'frozen':
    case 'slots':
      return {
        level: 'warning',
        message: describeBlocked({ prefix, group, slots: context.run.slots }, why, when),
      };
    default:
      return assertNever(why);
  }
}

/** An error, as an eviction before the start is: the operator's word is not chance, so it is no reason to try again soon. */
export function saySentAway(
  { log }: Pick<Deps, 'log'>,
  { context: { keys, run }, by }: Extract<Acquired, { kind: 'sent-away' }>,
): void {
  log('error', `${by} sent ${run.node} away from the queue of ${keys.group}; nothing was started`, {
    event: 'sent-away',
    group: keys.group,
    node: run.node,
    run: run.id,
    by,
  });
}

function describeBlocked(
  { prefix, group, slots }: { prefix: string; group: string; slots: number },
  why: Blocked,
  { wait, nowMs }: When,
): string {
  if (why.kind === 'frozen') {
    const { by, reason, since, until } = why.freeze;
    const end = until === undefined ? '' : `, ${momentText(until, nowMs)}`;
    const when = `since ${formatAge(nowMs - Date.parse(since))}${end}`;
    return `busy: ${frozenName(group, why)} is frozen by ${by} (${reason}) ${when}; see '${hint(prefix, 'status', group)}'`;
  }
  const within = wait === 0 || wait === 'forever' ? 'now' : `within ${formatAge(wait)}`;
  const holders = why.slots.flatMap((slot) => describeHolder(slot, nowMs));
  const free = firstFree(why.slots, slots);
  const parts = free === undefined ? holders : [...holders, `slot ${free} is free: others came first`];
  return `busy: no slot in ${group} ${within}${parts.length === 0 ? '' : ` (${parts.join(', ')})`}; see '${hint(prefix, 'status', group)}'`;
}

/** One that whoever is first in the queue will have in a moment; nobody passes them. */
function firstFree(seen: readonly Slot[], slots: number): number | undefined {
  const taken = new Set(seen.filter(isTaken).map(({ slot }) => slot));
  // Those beyond its own count too.
  if (taken.size >= slots) return undefined;
  let slot = 0;
  while (taken.has(slot)) slot++;
  return slot;
}

/** What is frozen: the group itself, one above it, or everything. */
function frozenName(group: string, { at }: Extract<Blocked, { kind: 'frozen' }>): string {
  if (at === group) return group;
  return at === '' ? 'everything' : `${at}, and so ${group},`;
}

export function describeHolder({ slot, owner, lockedBy }: Slot, nowMs: number): string[] {
  if (!owner) return [];
  const { node, state, since } = owner.claim;
  const gone =
    lockedBy === undefined && (state === 'running' || state === 'evicted') ? ' without a session' : '';
  return [
    `slot ${slot}: ${node} ${state}${gone}, ${endedText(owner.claim)}, since ${formatAge(nowMs - Date.parse(since))}`,
  ];
}
