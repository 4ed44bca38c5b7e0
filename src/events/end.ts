/** How a run ended, and what became of its slot, in one line. Pure. */
import { assertNever } from '../errors.ts';
import { clockTime, formatAge } from '../text/age.ts';
import { hint } from '../text/suggested-command.ts';
import type { Cause, GivenBack, Over, RunEvent, Sentence } from './events.ts';

type Ended = Extract<RunEvent, { event: 'ended' }>;

export function endSentence(event: Ended): Sentence {
  const { group, node, ranMs } = event;
  const { prefix, command, cause, given } = event.detail;
  const { unpublished } = event.detail;
  const killed = unpublished === undefined ? killedText(cause, group) : undefined;
  const after = unpublished === undefined ? healthAfter(event.detail, node) : `, but ${unpublished}`;
  const ran = killed ?? `${command} ${endedHow(event)} after ${formatAge(ranMs)}${after}`;
  const isWell =
    killed === undefined && unpublished === undefined && given.kind === 'released' && !given.kept;
  return {
    level: isWell ? 'info' : 'warning',
    message: `${ran}; ${givenBackText(given, { ...event, prefix })}`,
  };
}

const endedHow = ({ outcome, exitCode, detail: { told } }: Ended): string =>
  outcome === 'interrupted' && told === undefined
    ? `was interrupted and exited ${exitCode}`
    : `exited ${exitCode}`;

function healthAfter({ why, told }: Ended['detail'], node: string): string {
  if (why !== undefined) return `, but ${node} did not become healthy in time (${why})`;
  return told === undefined ? '' : `, but ${told} ended the wait for ${node} to become healthy`;
}

/** `group`: whose slot the sentence is about. */
function killedText(cause: Cause | undefined, group: string): string | undefined {
  switch (cause?.kind) {
    case 'evicted': {
      const from = cause.group === group ? '' : ` from ${cause.group}`;
      return `${cause.by} evicted the run${from}; killed the command`;
    }
    case 'lost':
      return `lost the lock of ${cause.group} (${cause.why}); killed the command`;
    case 'cut-off': {
      const of = cause.group === group ? '' : ` of ${cause.group}`;
      return `could not confirm the lock${of} in time (Consul not answering, or runlock stopped), so another run may start; killed the command`;
    }
    case 'timed-out':
      return 'killed the command: it ran longer than --timeout';
    case 'cancelled':
      return `${cause.why}; killed the command`;
    case 'signal':
    case undefined:
      return undefined;
    default:
      return assertNever(cause);
  }
}

/** Why a lease is over, for the line that reports this first. */
export function overText(over: Over, group: string): string {
  switch (over.kind) {
    case 'evicted':
      return `${over.by} evicted the run from ${group}`;
    case 'lost':
      return `lost the lock of ${group} (${over.why})`;
    case 'cut-off':
      return `could not confirm the lock of ${group} in time, so another run may start`;
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
      return `slot ${slot} of ${group} no longer belongs to this run; nothing to release`;
    case 'stays': {
      // An unreadable key stops the node's next run and a release too; `why` says what to do.
      const clear = given.stuck
        ? ''
        : `; the next run of ${node} clears this; to clear by hand: '${release}' (asks for confirmation)`;
      return `could not release slot ${slot} of ${group} (${given.why}), so the slot stays blocked by ${given.keys.join(', ')}${clear}`;
    }
    case 'released': {
      if (!given.kept) return `released slot ${slot} of ${group}`;
      const until = given.kept.heldUntil === undefined ? '' : `${clockTime(given.kept.heldUntil)} or `;
      return `${node} still holds slot ${slot} of ${group} until ${until}a run succeeds${given.kept.state === 'failed' ? `; to clear: '${release}'` : ''}`;
    }
    default:
      return assertNever(given);
  }
}
