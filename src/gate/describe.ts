/** Verdicts of the health gate, in words. Pure; names and outputs in it come from Consul as they are. */
import { assertNever } from '../errors.ts';
import { hint } from '../hint.ts';
import type { OfflinePeer, Verdict } from './decide.ts';
import type { Kept } from './exit.ts';

/** More names than this help nobody; `--json` has them all. */
const SHOWN = 5;

/** The first of them, and how many more. */
function list(names: readonly string[]): string {
  const more = names.length - SHOWN;
  return [...names.slice(0, SHOWN), ...(more > 0 ? [`${more} more`] : [])].join(', ');
}

/** Which instances are offline and why: `web-1 on web02 (maintenance: disk), web-1 on web03 (http: refused)`. */
const describeOffline = (peers: readonly OfflinePeer[]) =>
  list(peers.map(({ node, id, why }) => `${id} on ${node} (${why})`));

/** The reason of a verdict in one line, without the service's name. `node`: whoever asked; several have one name. */
export function describeVerdict(verdict: Verdict, node: string): string {
  const { because, offline, total, limit, minHealthy, ownInstances } = verdict;
  const after = offline.length + ownInstances;
  const bound = `${limit} may be`;
  switch (because) {
    case 'room':
      return `${count(verdict)}, ${bound}${minHealthy === undefined ? '' : `, ${minHealthy} must stay healthy`}`;
    case 'own-offline':
      return `${node} is offline itself (${verdict.ownWhy ?? 'a check is critical'}), its run may be the cure`;
    case 'not-here':
      return `${node} does not offer it`;
    case 'nowhere':
      return 'nobody offers it; is the name right?';
    case 'too-many-offline':
      return `${count(verdict)}; with ${node} ${after} would be, and ${bound}`;
    case 'too-few-healthy':
      return `${count(verdict)}; without ${node} ${total - after} stay healthy, and ${minHealthy ?? 0} must`;
    case 'too-many-here':
      return `${node} alone offers ${ownInstances} of ${total} instances, and ${limit} may be offline; raise --max-offline`;
    default:
      return assertNever(because);
  }
}

/** The command that ends what runlock has set, on the node itself. */
export function leaveHint(prefix: string, services: readonly string[]): string {
  return hint(prefix, 'gate', 'leave', '--service', services.join(',') || 'auto');
}

/** Why another run of the node keeps it in maintenance: `run 4f1a of prod/db is running`. */
export function describeNeed({ by, standing }: Kept): string {
  switch (standing.kind) {
    case 'claimed':
      return `run ${standing.claim.run} of ${standing.group} needs it (${standing.claim.state})`;
    case 'by-hand':
      return `it was entered by hand, until 'runlock gate leave'`;
    case 'unknown':
    case 'none':
      return `whether run ${by.run} needs it can't be read`;
    default:
      return assertNever(standing);
  }
}

function count({ offline, total }: Verdict): string {
  const named = offline.length === 0 ? '' : `: ${describeOffline(offline)}`;
  return `${offline.length} of ${total} offline${named}`;
}

/** Why the gate is closed, in one line: `web: 1 of 3 offline: web-1 on web02 (maintenance: disk); with web01 2 would be, …`. */
export function describeClosed(verdicts: readonly Verdict[], node: string): string {
  return verdicts
    .filter(({ open }) => !open)
    .map((verdict) => `${verdict.service}: ${describeVerdict(verdict, node)}`)
    .join('; ');
}

/** The peers that a closed gate waits for, each once: `web02 (maintenance: disk)`. */
export function waitedFor(verdicts: readonly Verdict[]): string {
  const peers = verdicts.filter(({ open }) => !open).flatMap(({ offline }) => offline);
  return list([...new Set(peers.map(({ node, why }) => `${node} (${why})`))]);
}
