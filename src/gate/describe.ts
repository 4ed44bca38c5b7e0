/** Describes verdicts of the health gate. Pure. Names and check outputs come from Consul unchanged. */
import { assertNever } from '../errors.ts';
import { leaveHint } from '../text/suggested-command.ts';
import type { OfflinePeer, Verdict } from './decide.ts';
import type { Kept } from './exit.ts';

/** Longer lists are cut after this many entries; `--json` has all of them. */
const SHOWN = 5;

/** The first names, and how many more there are. */
function list(names: readonly string[]): string {
  const more = names.length - SHOWN;
  return [...names.slice(0, SHOWN), ...(more > 0 ? [`${more} more`] : [])].join(', ');
}

/** Which instances are offline and why: `web-1 on web02 (maintenance: disk), web-1 on web03 (http: refused)`. */
const describeOffline = (peers: readonly OfflinePeer[]) =>
  list(peers.map(({ node, id, why }) => `${id} on ${node} (${why})`));

/**
 * The reason of a verdict in one line, without the service's name. `node`: the node that asked, or a name for
 * several.
 */
export function describeVerdict(verdict: Verdict, node: string): string {
  const { because, offline, total, limit, minHealthy, ownInstances } = verdict;
  const after = offline.length + ownInstances;
  const bound = `max ${limit}`;
  switch (because) {
    case 'room':
      return `${count(verdict)} (${bound}${minHealthy === undefined ? '' : `, min healthy ${minHealthy}`})`;
    case 'own-offline':
      return `${node} is offline itself (${verdict.ownWhy ?? 'a check is critical'}), and its run may repair it`;
    case 'not-here':
      return `${node} has no instance`;
    case 'away':
      return `the instance of ${node} has disappeared from Consul; its agent may be down`;
    case 'nowhere':
      return 'no instances; is the name correct?';
    case 'too-many-offline':
      return `${count(verdict)}; with ${node} ${after} would be offline (${bound})`;
    case 'too-few-healthy':
      return `${count(verdict)}; without ${node} ${total - after} would stay healthy (min ${minHealthy ?? 0})`;
    case 'too-many-here':
      return `${node} alone has ${ownInstances} of ${total} instances, more than may be offline (${bound}); raise --max-offline`;
    default:
      return assertNever(because);
  }
}

/** Why it stays in maintenance and what ends that: `run 4f1a of prod/db needs it (running), and ends it on success`. */
export function describeNeed({ mode, by, standing }: Kept, prefix: string): string {
  const leave = leaveHint(prefix, mode.scope === 'node' ? [] : [mode.service]);
  switch (standing.kind) {
    case 'claimed': {
      const { claim, group, locked } = standing;
      const need = `run ${claim.run} of ${group} needs it (${claim.state})`;
      if (locked) return `${need}, and ends it on success`;
      return `${need}; the node's next successful run of ${group} with --service ${mode.service || 'auto'} ends it; to end it by hand: '${leave}'`;
    }
    case 'by-hand':
      return `it was set with 'runlock gate enter'; to end it: '${leave}'`;
    case 'unknown':
    case 'none':
      if (!by.mark)
        return `${by.key} can't be read; if a newer runlock wrote it, that run ends the maintenance; otherwise run 'consul kv delete ${by.key}', then '${leave}'`;
      return `can't tell whether run ${by.run} of ${by.mark.groups.join(', ')} needs it; the node's next successful run there ends it`;
    default:
      return assertNever(standing);
  }
}

function count({ offline, total }: Verdict): string {
  const named = offline.length === 0 ? '' : `: ${describeOffline(offline)}`;
  return `${offline.length} of ${total} offline${named}`;
}

/**
 * Why the gate is closed, in one line: `web: 1 of 3 offline: web-1 on web02 (maintenance: disk); with web01 2 would
 * be offline (max 1)`.
 */
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
