/** If work may still go on behind a claim, clearing it needs `--force`, or a yes at the terminal (docs/adr/0019). */
import { RunlockError, assertNever } from '../../errors.ts';
import type { Claim } from '../../lock/records.ts';
import { formatAge } from '../../text/age.ts';
import { forced } from './forced.ts';
import type { Target } from './released.ts';

/**
 * Returns if a claim without a session may be cleared.
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
      `nothing was cleared: the claim of ${claim.node} on slot ${slot} of ${options.group} changed before the answer, and is ${claim.state} now (run ${claim.run}); check the claim and try again`,
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
 * What a yes covers: a run, even if its claim has changed meanwhile. For a held claim only the unchanged claim, because
 * a repeated `acquire` means that work goes on.
 */
const shownBy = (claim: Claim): string => (claim.state === 'held' ? JSON.stringify(claim) : claim.run);

interface Doubt {
  /** What may still be going on. */
  readonly what: string;
  /** What to check, or whom to ask. */
  readonly where: string;
}

/** Undefined: no doubt, because the run itself has recorded its end. */
function doubtOf({ deps, options: { group } }: Target, slot: number, claim: Claim): Doubt | undefined {
  const { node, command, run, pid } = claim;
  const place = `slot ${slot} of ${group}`;
  const since = formatAge(deps.clock.now() - Date.parse(claim.since));
  const where = `check ${node} (run ${run}, its runlock was pid ${pid})`;
  switch (claim.state) {
    case 'running':
    case 'evicted':
      return {
        what: `${node} was running ${command} in ${place} and lost its session; the command may still be running there`,
        where,
      };
    case 'abandoned':
      return {
        what: `${node} vanished while running ${command} in ${place} (abandoned ${since} ago); the command may still be running there`,
        where,
      };
    case 'held':
      return {
        what: `${node} acquired ${place} with 'runlock acquire' ${since} ago and has not released it; its work may still be going on`,
        where: `check ${node}, or ask the people who work on it`,
      };
    case 'failed':
    case 'interrupted':
    case 'rebooting':
      return undefined;
    default:
      return assertNever(claim.state);
  }
}
