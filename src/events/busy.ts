/** Why a run did not get a slot, in one line. Pure. */
import { assertNever } from '../errors.ts';
import { formatAge, momentText } from '../text/age.ts';
import { stateText } from '../text/ended.ts';
import { frozenName } from '../text/frozen.ts';
import { hint } from '../text/suggested-command.ts';
import type { Holder, RunEvent, Sentence, TurnHolder } from './events.ts';

type Busy = Extract<RunEvent, { event: 'busy' }>;

/**
 * `info` when the node is already running or queued in the group on this host, because cron need not mail this: the next run
 * does what this one would have. A run of another group does not, so that is a warning. For `acquire` the same is one, because
 * its caller must not go on.
 */
export function busySentence(event: Busy): Sentence {
  const isExpected =
    (event.why === 'turn' && !event.detail.left && sharesGroup(event.group, event.detail)) ||
    (event.why === 'same-node' && event.detail.asked === 'exec');
  const level = isExpected ? 'info' : 'warning';
  return { level, message: `busy: ${busyText(event)}` };
}

const sharesGroup = (asked: string, { groups }: TurnHolder) =>
  asked.split(',').some((group) => groups.includes(group));

function busyText(event: Busy): string {
  const { group, node } = event;
  const release = (prefix: string) => hint(prefix, 'release', group, '--owner', node);
  switch (event.why) {
    case 'same-node': {
      const { pid, forMs, asked } = event.detail;
      const inside =
        asked === 'acquire-inside-exec'
          ? "; the enclosing 'runlock exec' acquires and releases the slot: remove acquire and release from the command"
          : '';
      return `${node} is already running or queued in ${group} (pid ${pid}, for ${formatAge(forMs)})${inside}`;
    }
    case 'elsewhere': {
      const { pid, forMs, prefix, host = 'name unknown', holds } = event.detail;
      const age = formatAge(forMs);
      const rename = 'If this host is a different node, give it its own name with --node';
      if (holds !== undefined)
        return `another host (${host}) holds slot ${holds} of ${group} as ${node}, by 'runlock acquire' ${age} ago. Wait for its release, or check that no work is going on there and run '${release(prefix)}'. ${rename}`;
      return `another host (${host}) is running or queued in ${group} as ${node} (pid ${pid}, for ${age}). Wait for that run to end, or check that nothing is running there and run '${release(prefix)}' (asks for confirmation). ${rename}`;
    }
    case 'orphan':
      return orphanText(node, group, event.detail);
    case 'turn':
      return turnText(node, event.detail);
    case 'another-user': {
      const { uid, prefix } = event.detail;
      return `the runlock of an earlier run of ${node} in ${group} is dead, and this user can't see whether processes of that run are still running, because another user (uid ${uid}) started it; retry as that user or as root, or check that none are running and run '${release(prefix)}' (asks for confirmation)`;
    }
    case 'held': {
      const { slot, forMs, prefix } = event.detail;
      return `${node} already holds slot ${slot} of ${group}, by 'runlock acquire' ${formatAge(forMs)} ago; to release: '${hint(prefix, 'release', group)}'`;
    }
    case 'frozen': {
      const { at, by, reason, since, until, nowMs, prefix } = event.detail;
      const end = until === undefined ? '' : ` ${momentText(until, nowMs)}`;
      const age = formatAge(nowMs - Date.parse(since));
      return `${frozenName(at, group)} was frozen ${age} ago by ${by} (${reason})${end}; see '${hint(prefix, 'status', group)}'`;
    }
    case 'slots': {
      const { holders, free, wait, prefix } = event.detail;
      const within = wait === 0 || wait === 'forever' ? '' : ` within ${formatAge(wait)}`;
      const known = holders.map(holderText);
      const parts = free === undefined ? known : [...known, `slot ${free}: free, but others are ahead`];
      return `no slot available in ${group}${within}${parts.length === 0 ? '' : ` (${parts.join(', ')})`}; see '${hint(prefix, 'status', group)}'`;
    }
    case 'gate':
      return `the gate is closed for ${node} (${event.detail.closed})`;
    default:
      return assertNever(event);
  }
}

interface Orphans {
  readonly pids: readonly number[];
  readonly cgroup?: string;
}

function orphanText(node: string, group: string, { pids, cgroup }: Orphans): string {
  const who = cgroup === undefined ? `pid ${pids.join(', ')}` : `in another pid namespace, cgroup ${cgroup}`;
  return `processes of an earlier run of ${node} in ${group} are still running (${who}), and their runlock is dead; wait for them to exit or kill them, then retry`;
}

/** Who has the turn of a node on this host. */
export function turnText(node: string, { pid, command, groups, forMs, left }: TurnHolder): string {
  const all = groups.join(', ');
  if (left) return orphanText(node, all, left);
  return `${node} is already running or queued in ${all} (pid ${pid}, ${command}, for ${formatAge(forMs)})`;
}

/** `slot 0: web01 running puppet for 3m`. */
export function holderText({ slot, node, isWithoutSession, ...claim }: Holder): string {
  return `slot ${slot}: ${node} ${stateText(claim)}${isWithoutSession ? ', session lost' : ''}`;
}
