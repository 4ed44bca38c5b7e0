/** How a run ended, and what became of its slot, in one line. Pure. */
import { assertNever } from '../errors.ts';
import { clockTime, formatAge } from '../text/age.ts';
import { hint } from '../text/suggested-command.ts';
import type { Cause, GivenBack, Over, RunEvent, Sentence } from './events.ts';

type Ended = Extract<RunEvent, { event: 'ended' }>;

export function endSentence(event: Ended): Sentence {
  const { group, node, ranMs } = event;
  const { prefix, command, cause, given } = event.detail;
  const killed = killedText(cause, group);
  const ran =
    killed ?? `${command} ${endedHow(event)} after ${formatAge(ranMs)}${healthAfter(event.detail, node)}`;
  const isWell = killed === undefined && given.kind === 'released' && !given.kept;
  return {
    level: isWell ? 'info' : 'warning',
    message: `${ran}; ${givenBackText(given, { ...event, prefix })}`,
  };
}

const endedHow = ({ outcome, exitCode, detail: { told } }: Ended): string =>
  outcome === 'interrupted' && told === undefined
    ? `was interrupted and ended with ${exitCode}`
    : `ended with ${exitCode}`;

function healthAfter({ why, told }: Ended['detail'], node: string): string {
  if (why !== undefined) return `, but ${node} was not healthy in time after it (${why})`;
  return told === undefined ? '' : `, but ${told} ended the wait until ${node} is healthy`;
}

/** `group`: whose slot the sentence is about. */
function killedText(cause: Cause | undefined, group: string): string | undefined {
  switch (cause?.kind) {
    case 'evicted': {
      const from = cause.group === group ? '' : ` from ${cause.group}`;
      return `the run was evicted${from} by ${cause.by} and killed`;
    }
    case 'lost':
      return `the lock of ${cause.group} was lost (${cause.why}) and the command killed`;
    case 'cut-off': {
      const of = cause.group === group ? '' : ` of ${cause.group}`;
      return `nothing showed the lock${of} for so long that others may follow (Consul silent, or runlock stopped); the command was killed`;
    }
    case 'timed-out':
      return 'the command ran longer than --timeout and was killed';
    case 'signal':
    case undefined:
      return undefined;
    default:
      return assertNever(cause);
  }
}

/** Why a lease was over, while that is news. */
export function overText(over: Over, group: string): string {
  switch (over.kind) {
    case 'evicted':
      return `${over.by} evicted the run from ${group}`;
    case 'lost':
      return `lost the lock of ${group} (${over.why})`;
    case 'cut-off':
      return `nothing showed the lock of ${group} for so long that others may follow`;
    default:
      return assertNever(over);
  }
}

export function givenBackText(
  given: GivenBack,
  { prefix, node, group, slot }: { prefix: string; node: string; group: string; slot: number },
): string {
  const release = hint(prefix, 'release', group, '--owner', node);
  switch (given.kind) {
    case 'nothing':
      return `slot ${slot} of ${group} is no longer its own; nothing was given back`;
    case 'stays': {
      // What can't be read stops its next run and a release as well; why it can't says what to do.
      const clear = given.stuck ? '' : `; its next run clears it, or '${release}', which asks first`;
      return `it could not be given back (${given.why}): ${given.keys.join(', ')} stays and keeps others out${clear}`;
    }
    case 'released': {
      if (!given.kept) return `slot ${slot} of ${group} is free again`;
      const until = given.kept.heldUntil === undefined ? '' : `${clockTime(given.kept.heldUntil)} or `;
      return `${node} keeps slot ${slot} of ${group} until ${until}its next good run${given.kept.state === 'failed' ? `; '${release}' clears it` : ''}`;
    }
    default:
      return assertNever(given);
  }
}
