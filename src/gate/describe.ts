/** Verdicts of the health gate, in words. Pure; names and outputs in it come from Consul as they are. */
import { assertNever } from '../errors.ts';
import { hint } from '../hint.ts';
import type { OfflinePeer, Verdict } from './decide.ts';

/** More names than this help nobody; `--json` has them all. */
const SHOWN = 5;

/** Who is offline and why: `web02 (maintenance: disk), web03 (http: refused)`. */
export function describePeers(peers: readonly OfflinePeer[]): string {
  const shown = peers.slice(0, SHOWN).map(({ node, why }) => `${node} (${why})`);
  const more = peers.length - shown.length;
  return [...shown, ...(more > 0 ? [`${more} more`] : [])].join(', ');
}

/** One line about one service, without its name. */
export function describeVerdict(verdict: Verdict, node: string): string {
  const { because, offline, total, limit, ownInstances } = verdict;
  const after = offline.length + ownInstances;
  const bound = `${limit} may be`;
  switch (because) {
    case 'room':
      return `${count(verdict)}, ${bound}`;
    case 'own-offline':
      return `${node} is offline itself (${verdict.ownWhy ?? 'a check is critical'}), its run may be the cure`;
    case 'not-here':
      return `${node} does not offer it`;
    case 'nowhere':
      return 'nobody offers it; is the name right?';
    case 'too-many-offline':
      return `${count(verdict)}; with ${node} ${after} would be, and ${bound}`;
    case 'too-few-healthy':
      return `${count(verdict)}; without ${node} ${total - after} stay healthy, and ${verdict.minHealthy ?? 0} must`;
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

function count({ offline, total }: Verdict): string {
  const named = offline.length === 0 ? '' : `: ${describePeers(offline)}`;
  return `${offline.length} of ${total} offline${named}`;
}

/** Why the gate is closed, in one line: `web: 1 of 3 offline: web02 (maintenance: disk); with web01 2 would be, …`. */
export function describeClosed(verdicts: readonly Verdict[], node: string): string {
  return verdicts
    .filter(({ open }) => !open)
    .map((verdict) => `${verdict.service}: ${describeVerdict(verdict, node)}`)
    .join('; ');
}

/** The peers that a closed gate waits for, each once: `web02 (maintenance: disk)`. */
export function waitedFor(verdicts: readonly Verdict[]): string {
  const peers = verdicts.filter(({ open }) => !open).flatMap(({ offline }) => offline);
  const nodes = new Map(peers.map((peer) => [`${peer.node} ${peer.why}`, peer]));
  return describePeers([...nodes.values()]);
}
