/** Reads all that `status --node` shows, as of one moment. */
import { isOf } from '../conditions/read.ts';
import type { KeySource } from '../conditions/sources.ts';
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { Consul, Entry, RetryOptions } from '../consul/consul.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import { agentKey, triggerKey } from '../jobs/keys.ts';
import { viewGroups } from './groups.ts';
import { viewNode } from './node.ts';
import type { NodeReport } from './node.ts';
import { sourcesOf } from './sources.ts';
import type { Scope } from './sources.ts';
import { readWaits } from './read-waits.ts';
import { sourcesOfWaits, waitingRuns } from './waits.ts';

interface NodeReading extends Scope {
  readonly node: string;
  /** Wall-clock milliseconds. */
  readonly now: number;
  readonly signal: AbortSignal;
}

/**
 * By one transaction; only the health of services that a run waits for is read after it. What the token may not read is
 * `hidden` in the report.
 * @throws RunlockError if Consul can't be reached, or lets this token read nothing of it.
 */
export async function readNode(consul: Consul, reading: NodeReading): Promise<NodeReport> {
  const { prefix, groups, node, now, signal } = reading;
  const limits = { signal, ...FIRST_CONTACT };
  const places = placesOf(reading);
  const all = [...places.groups, ...places.freezes, places.agent, places.requests, places.triggers];
  const [entries, refused] = await Promise.all([
    readTogether(consul, all, limits),
    findRefused(consul, all, limits),
  ]);
  const [first] = [...refused.values()];
  if (first !== undefined && refused.size === all.length) throw new RunlockError('forbidden', first);
  const waiting = waitingRuns(prefix, entries).filter((run) => run.node === node);
  const sources = sourcesOfWaits(prefix, waiting);
  const everything = groups.length === 0 ? entries : undefined;
  const waits =
    sources.length === 0 ? undefined : await readWaits(consul, { prefix, sources, everything }, limits);
  const scope = { prefix, groups, now };
  const report = viewGroups({ entries, refused, ...(waits && { waits }) }, scope);
  const hiddenIn = (sources: readonly KeySource[]) => sources.flatMap(({ key }) => refused.get(key) ?? []);
  return viewNode(
    {
      entries,
      groups: report.groups,
      agentHidden: refused.get(places.agent.key),
      requestsHidden: refused.get(places.requests.key),
      triggersHidden: refused.get(places.triggers.key),
      hidden: hiddenIn([...places.groups, ...places.freezes]),
    },
    { prefix, node, now },
  );
}

interface Places {
  readonly groups: readonly KeySource[];
  readonly freezes: readonly KeySource[];
  readonly agent: KeySource;
  readonly requests: KeySource;
  readonly triggers: KeySource;
}

function placesOf({ prefix, groups, node }: NodeReading): Places {
  const place = (kind: KeySource['kind'], key: string): KeySource => {
    const resource = kind === 'tree' ? 'key_prefix' : 'key';
    return { kind, key, rule: `${resource} "${key}" { policy = "read" }` };
  };
  const sources = sourcesOf({ prefix, groups });
  return {
    groups: sources.filter(({ kind }) => kind === 'tree').map(({ key }) => place('tree', key)),
    freezes: sources.filter(({ kind }) => kind === 'freeze').map(({ key }) => place('key', key)),
    agent: place('key', agentKey(prefix, node)),
    requests: place('tree', `${prefix}/.requests/`),
    triggers: place('tree', triggerKey(prefix, node, '')),
  };
}

/** What a transaction takes. */
const MOST_READS = 64;

/** Each key once, though one tree may be within another. */
async function readTogether(
  consul: Consul,
  sources: readonly KeySource[],
  options: RetryOptions,
): Promise<readonly Entry[]> {
  const widest = sources.filter(
    ({ key }) =>
      !sources.some((other) => other.kind === 'tree' && other.key !== key && key.startsWith(other.key)),
  );
  if (widest.length > MOST_READS)
    throw new RunlockError(
      'usage',
      `these groups need ${widest.length} reads at one moment, and ${MOST_READS} are allowed; name fewer groups`,
    );
  const reads = widest.map(({ key }) => ({ verb: 'get-tree', key }) as const);
  const found = await consul.readAll(reads, options);
  const wanted = found.filter(({ key }) => widest.some((source) => isOf(source, key)));
  return [...new Map(wanted.map((entry) => [entry.key, entry])).values()];
}

/** A transaction leaves out what the token may not read. By key: Consul's refusal, which names the rule. */
async function findRefused(
  consul: Consul,
  sources: readonly KeySource[],
  options: RetryOptions,
): Promise<ReadonlyMap<string, string>> {
  const refused = new Map<string, string>();
  const proofs = sources.map(async ({ kind, key, rule }) => {
    try {
      await consul.get(kind === 'tree' ? `${key}.may-read` : key, { ...options, rule });
    } catch (error) {
      if (!isRunlockError(error, 'forbidden')) throw error;
      refused.set(key, error.message);
    }
  });
  await Promise.all(proofs);
  return refused;
}
