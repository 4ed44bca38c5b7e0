/** Why a run did not get a slot, in one line. Pure. */
import { assertNever } from '../errors.ts';
import { formatAge, momentText } from '../text/age.ts';
import { endedText } from '../text/ended.ts';
import { hint } from '../text/suggested-command.ts';
import type { Holder, RunEvent, Sentence } from './events.ts';

type Busy = Extract<RunEvent, { event: 'busy' }>;

/**
 * `info` where it is nothing to mail about: this node already runs or waits. Of `acquire` that is a warning: whoever asked
 * for the first half must not go on.
 */
export function busySentence(event: Busy): Sentence {
  const level = event.why === 'same-node' && event.detail.asked === 'exec' ? 'info' : 'warning';
  return { level, message: `busy: ${busyText(event)}` };
}

function busyText(event: Busy): string {
  const { group, node } = event;
  const release = (prefix: string) => hint(prefix, 'release', group, '--owner', node);
  switch (event.why) {
    case 'same-node': {
      const { pid, forMs, asked } = event.detail;
      const inside =
        asked === 'acquire-inside-exec'
          ? "; this is inside a 'runlock exec' of the group, which holds the slot and gives it back: leave acquire and release out"
          : '';
      return `${node} already runs or waits in ${group} (pid ${pid}, since ${formatAge(forMs)})${inside}`;
    }
    case 'elsewhere': {
      const { pid, forMs, prefix, host = 'a host without a name', holds } = event.detail;
      const since = formatAge(forMs);
      if (holds !== undefined)
        return `another machine, ${host}, holds slot ${holds} of ${group} as ${node} by 'runlock acquire' (since ${since}). Wait until it is released there; or ask whoever works there, and clear it with '${release(prefix)}'. If this is another node, give it its own name with --node`;
      return `another machine, ${host}, runs or waits in ${group} as ${node} too (pid ${pid}, since ${since}). Wait until that run has ended; or look there that nothing runs any more, and clear it with '${release(prefix)}', which asks first. If this is another node, give it its own name with --node`;
    }
    case 'orphan': {
      const { pids, cgroup } = event.detail;
      const who =
        cgroup === undefined ? `pid ${pids.join(', ')}` : `in another pid namespace, in the cgroup ${cgroup}`;
      return `an earlier run of ${node} in ${group} lost its runlock and its processes still run (${who}); let them end, or end them, and start again`;
    }
    case 'another-user': {
      const { uid, prefix } = event.detail;
      return `an earlier run of ${node} in ${group} lost its runlock; another user (uid ${uid}) had started it, so what still runs of it can't be seen; start again as that user or root, or, once nothing of it runs, clear it with '${release(prefix)}', which asks first`;
    }
    case 'held': {
      const { slot, forMs, prefix } = event.detail;
      return `${node} holds slot ${slot} of ${group} by 'runlock acquire' (since ${formatAge(forMs)}) until '${hint(prefix, 'release', group)}'`;
    }
    case 'frozen': {
      const { at, by, reason, since, until, nowMs, prefix } = event.detail;
      const what = at === group ? group : at === '' ? 'everything' : `${at}, and so ${group},`;
      const end = until === undefined ? '' : `, ${momentText(until, nowMs)}`;
      const when = `since ${formatAge(nowMs - Date.parse(since))}${end}`;
      return `${what} is frozen by ${by} (${reason}) ${when}; see '${hint(prefix, 'status', group)}'`;
    }
    case 'slots': {
      const { holders, free, wait, prefix } = event.detail;
      const within = wait === 0 || wait === 'forever' ? 'now' : `within ${formatAge(wait)}`;
      const known = holders.map(holderText);
      const parts = free === undefined ? known : [...known, `slot ${free} is free: others came first`];
      return `no slot in ${group} ${within}${parts.length === 0 ? '' : ` (${parts.join(', ')})`}; see '${hint(prefix, 'status', group)}'`;
    }
    case 'gate':
      return `the gate is closed for ${node} (${event.detail.closed})`;
    default:
      return assertNever(event);
  }
}

/** `slot 0: web01 failed, puppet, exit 4, since 3m`. */
export function holderText({ slot, node, state, isWithoutSession, forMs, ...ran }: Holder): string {
  const gone = isWithoutSession ? ' without a session' : '';
  return `slot ${slot}: ${node} ${state}${gone}, ${endedText(ran)}, since ${formatAge(forMs)}`;
}
