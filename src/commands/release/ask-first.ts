/** A claim behind which something may still be at work is cleared by `--force`, or by a person who says yes (docs/adr/0019). */
import { RunlockError, assertNever } from '../../errors.ts';
import type { Claim } from '../../lock/records.ts';
import { formatAge } from '../../text/age.ts';
import { forced } from './forced.ts';
import type { Target } from './released.ts';

/**
 * Returns where the claim may be cleared; no session stands behind it.
 * @throws RunlockError `refused`: neither --force nor a yes.
 */
export function askFirst(target: Target, slot: number, claim: Claim): void {
  const { options, confirm, confirmed } = target;
  const doubt = doubtOf(target, slot, claim);
  if (options.force || confirmed.has(shownBy(claim))) return;
  if (doubt === undefined) {
    if (confirmed.size === 0) return;
    throw new RunlockError(
      'refused',
      `the claim of ${claim.node} on slot ${slot} of ${options.group} changed while the question was open: it is ${claim.state} now (run ${claim.run}), and nothing was cleared; look at it again`,
    );
  }
  const answer = confirm(`${doubt.what}. ${doubt.where}.`);
  if (answer === true) {
    confirmed.add(shownBy(claim));
    return;
  }
  const said = `${doubt.what}; ${doubt.where}, then use '${forced(target, claim)}'`;
  throw new RunlockError('refused', answer === false ? `nothing was cleared: ${said}` : said);
}

/**
 * What a yes is about: the run, however its claim was marked meanwhile. What is held, just as it was: whoever asked for it
 * again is at work there.
 */
const shownBy = (claim: Claim): string => (claim.state === 'held' ? JSON.stringify(claim) : claim.run);

interface Doubt {
  /** What may still go on there. */
  readonly what: string;
  /** Where to look, or whom to ask. */
  readonly where: string;
}

/** Undefined: whoever has the claim has said that nothing of it runs any more. */
function doubtOf({ deps, options: { group } }: Target, slot: number, claim: Claim): Doubt | undefined {
  const { node, command, run, pid } = claim;
  const place = `slot ${slot} of ${group}`;
  const since = formatAge(deps.clock.now() - Date.parse(claim.since));
  const where = `look at ${node} (run ${run}, its runlock was pid ${pid})`;
  switch (claim.state) {
    case 'running':
    case 'evicted':
      return {
        what: `${node} was running ${command} in ${place} and its session is gone: the command may still run there`,
        where,
      };
    case 'abandoned':
      return {
        what: `${node} vanished while it ran ${command} in ${place} (abandoned ${since} ago): the command may still run there`,
        where,
      };
    case 'held':
      return {
        what: `${node} took ${place} with 'runlock acquire' ${since} ago and has not given it back: what it does there may still go on`,
        where: `ask whoever works on ${node}, or look there`,
      };
    case 'failed':
    case 'interrupted':
    case 'rebooting':
      return undefined;
    default:
      return assertNever(claim.state);
  }
}
