/** What `release` did, for people. Pure. */
import { assertNever } from '../../errors.ts';
import { hint } from '../../text/suggested-command.ts';
import { clockTime, formatAge } from '../../text/age.ts';
import { visible } from '../../text/visible.ts';
import type { MaintenanceEnd } from './maintenance.ts';
import type { ReleaseResult, Released } from './released.ts';

export function describeRelease(result: ReleaseResult, prefix: string): string {
  const { node, group } = result;
  switch (result.kind) {
    case 'nothing':
      return result.claim === undefined
        ? `nothing to release: ${node} has no claim in ${group}\n`
        : `nothing to release: ${node} holds nothing in ${group} (its claim says ${result.claim}, and stays)\n`;
    case 'sent-away':
      return `sent ${node} away from the queue of ${group}; ${awayText(result.how, node)}\n`;
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
  return `sent the run of ${node} away that waited for it in ${group}; ${awayText(sentAway.how, node)}\n`;
}

function awayText(how: Extract<ReleaseResult, { kind: 'sent-away' }>['how'], node: string): string {
  switch (how) {
    case 'left':
      return 'it has left';
    case 'dead':
      return 'its runlock was dead already';
    case 'silent':
      return `its runlock on ${node} has not answered (stopped, dead, or cut off from Consul) and leaves when it is back`;
    default:
      return assertNever(how);
  }
}

/** The places that are out of maintenance now; nothing where there are none. */
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
        return `cleared the held claim of ${node} on slot ${slot} of ${group}; what ${node} does there may still go on: look there before others change`;
      return `cleared the ${state} claim of ${node} on slot ${slot} of ${group}; its session was gone, so the command may still run on ${node}: look there before others change`;
    case 'evicted':
      return `evicted ${node} from slot ${slot} of ${group}; its command is gone`;
    case 'given-back':
      return `${node} gave slot ${slot} of ${group} back after ${formatAge(heldMs)}`;
    case 'kept': {
      const until = heldUntil === undefined ? '' : `${clockTime(heldUntil)} or `;
      return `${node} failed after ${formatAge(heldMs)} and keeps slot ${slot} of ${group} until ${until}its next good run; '${hint(prefix, 'release', group, '--owner', node)}' clears it`;
    }
    default:
      return assertNever(how);
  }
}
