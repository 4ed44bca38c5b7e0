/** Verdicts of the health gate, in words. Pure; names and outputs in it come from Consul as they are. */
import { assertNever } from '../errors.ts';
import { leaveHint } from '../text/suggested-command.ts';
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
    case 'away':
      return `${node} no longer shows its ${verdict.service}; its agent may be away`;
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

/** Why it stays in maintenance and what ends that: `run 4f1a of prod/db needs it (running), and ends it when it is good`. */
export function describeNeed({ mode, by, standing }: Kept, prefix: string): string {
  const leave = leaveHint(prefix, mode.scope === 'node' ? [] : [mode.service]);
  switch (standing.kind) {
    case 'claimed': {
      const { claim, group, locked } = standing;
      const need = `run ${claim.run} of ${group} needs it (${claim.state})`;
      if (locked) return `${need}, and ends it when it is good`;
      return `${need}; the node's next good run of ${group} with --service ${mode.service || 'auto'} ends it, or '${leave}'`;
    }
    case 'by-hand':
      return `it was entered by hand, until '${leave}'`;
    case 'unknown':
    case 'none':
      if (!by.mark)
        return `${by.key} can't be read; unless a newer runlock wrote it, whose run ends it, 'consul kv delete ${by.key}', then '${leave}'`;
      return `whether run ${by.run} of ${by.mark.groups.join(', ')} needs it can't be read; the node's next good run there ends it`;
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
