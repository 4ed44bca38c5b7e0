/** What `release` did, for people. Pure. */
import { assertNever } from '../../errors.ts';
import { hint } from '../../text/suggested-command.ts';
import { clockTime, formatAge } from '../../text/age.ts';
import { visible } from '../../text/visible.ts';
import type { MaintenanceEnd } from './maintenance.ts';
import type { ReleaseResult, Released } from './released.ts';

export function describeRelease(
  result: ReleaseResult,
  {
    prefix,
    nowMs,
    isOwn,
  }: { prefix: string; nowMs: number; /** Asked for on the node itself. */ isOwn: boolean },
): string {
  const { node, group } = result;
  switch (result.kind) {
    case 'nothing':
      return result.claim === undefined
        ? `nothing to release: ${node} has no claim in ${group}\n`
        : `nothing to release: ${node} does not hold ${group} by acquire (its ${result.claim} claim stays)\n`;
    case 'outside':
      return `${visible(describeOutside(result, { nowMs, isOwn }))}\n`;
    case 'sent-away':
      return `removed ${node} from the queue of ${group}; ${awayText(result.how, node)}\n`;
    case 'released':
      return result.claims
        .map((claim) => `${describeClaim(claim, { prefix, group })}\n${describeAway(claim, group)}`)
        .join('');
    default:
      return assertNever(result);
  }
}

/** Its record has no pid, so whether its runlock is alive is for the reader to see. */
function describeOutside(
  { node, group, run, command, since, when, services, turn }: Extract<ReleaseResult, { kind: 'outside' }>,
  { nowMs, isOwn }: { nowMs: number; isOwn: boolean },
): string {
  const gate = services ? [`its gate (${services.join(', ')})`] : [];
  const other = turn ? [`its node's run in ${turn.groups.join(', ')} (pid ${turn.pid}) has ended`] : [];
  const reasons = [...gate, ...when, ...other].join(' and ');
  const waits = `waiting without a slot for ${formatAge(nowMs - Date.parse(since))}${reasons === '' ? '' : `, until ${reasons}`}`;
  const where = isOwn ? 'on this host' : `on ${node}`;
  return `nothing was done: ${node} has no claim in ${group}, but its run ${run} (${command}) has been ${waits}; to stop that run, end its runlock ${where}; if that runlock is dead already, Consul drops the run within two minutes (later if its --session-ttl is longer)`;
}

function describeAway({ node, sentAway }: Released, group: string): string {
  if (!sentAway) return '';
  return `removed the run of ${node} that was waiting for this claim in ${group}; ${awayText(sentAway.how, node)}\n`;
}

function awayText(how: Extract<ReleaseResult, { kind: 'sent-away' }>['how'], node: string): string {
  switch (how) {
    case 'left':
      return 'its runlock has exited';
    case 'dead':
      return 'its runlock was already dead';
    case 'silent':
      return `its runlock on ${node} has not answered (stopped, dead, or cut off from Consul), and exits once it is back`;
    case 'later':
      return `its runlock on ${node} exits when its turn comes`;
    default:
      return assertNever(how);
  }
}

/** A line for each place that is now out of maintenance. */
export function describeMaintenance({ ended }: MaintenanceEnd): string {
  return ended.map((place) => `${visible(place)} is out of maintenance\n`).join('');
}

function describeClaim(claim: Released, { prefix, group }: { prefix: string; group: string }): string {
  const { slot, node, state, how, heldMs = 0, heldUntil } = claim;
  switch (how) {
    case 'cleared':
      return `cleared the ${state} claim of ${node} on slot ${slot} of ${group}`;
    case 'unwatched':
      if (state === 'held')
        return `cleared the held claim of ${node} on slot ${slot} of ${group}; its work may still be going on: check ${node} before other nodes start`;
      return `cleared the ${state} claim of ${node} on slot ${slot} of ${group}; its session was lost, so the command may still be running: check ${node} before other nodes start`;
    case 'evicted':
      return `evicted ${node} from slot ${slot} of ${group}; its command has ended`;
    case 'given-back':
      return `${node} released slot ${slot} of ${group} after ${formatAge(heldMs)}`;
    case 'kept': {
      const until = heldUntil === undefined ? '' : `${clockTime(heldUntil)} or `;
      return `${node} failed after ${formatAge(heldMs)} and still holds slot ${slot} of ${group} until ${until}a run succeeds; to clear: '${hint(prefix, 'release', group, '--owner', node)}'`;
    }
    default:
      return assertNever(how);
  }
}
