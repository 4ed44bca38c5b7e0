/** What `release` did, for people. Pure. */
import { assertNever } from '../../errors.ts';
import { hint } from '../../text/suggested-command.ts';
import { clockTime, formatAge } from '../../text/age.ts';
import { visible } from '../../text/visible.ts';
import type { MaintenanceEnd } from './maintenance.ts';
import type { ReleaseResult, Released } from './released.ts';

export function describeRelease(
  result: ReleaseResult,
  { prefix, nowMs }: { prefix: string; nowMs: number },
): string {
  const { node, group } = result;
  switch (result.kind) {
    case 'nothing':
      return result.claim === undefined
        ? `nothing to release: ${node} has no claim in ${group}\n`
        : `nothing to release: ${node} does not hold ${group} by acquire (its ${result.claim} claim stays)\n`;
    case 'outside': {
      const { run, command, since, when, services } = result;
      const gate = services ? [`its gate (${services.join(', ')})`] : [];
      const forWhat = [...gate, ...when].join(' and ');
      const age = formatAge(nowMs - Date.parse(since));
      return `${visible(`nothing was done: ${node} has no claim in ${group}, but has been waiting without a slot for ${age} to run ${command} (run ${run}), for ${forWhat}; only ${node} itself can stop that run: end its runlock there`)}\n`;
    }
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
