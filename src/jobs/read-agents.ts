/** Reads what the agents of nodes say of themselves. */
import type { Consul, Entry, RetryOptions } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import { agentKey } from './keys.ts';
import { decodeAgent } from './records.ts';
import type { AgentSeen } from './resolve.ts';

/** What a transaction takes. */
const MOST_READS = 64;

/**
 * By node. Up to 64 nodes are read at one moment.
 * @throws RunlockError `forbidden`, naming the rule: a key that may not be read never counts as absent.
 */
export async function readAgents(
  consul: Consul,
  { prefix, nodes }: { readonly prefix: string; readonly nodes: readonly string[] },
  options: Omit<RetryOptions, 'rule'>,
): Promise<ReadonlyMap<string, AgentSeen>> {
  const found = new Map<string, Entry>();
  const keys = nodes.map((node) => agentKey(prefix, node));
  for (let from = 0; from < keys.length; from += MOST_READS) {
    const reads = keys.slice(from, from + MOST_READS).map((key) => ({ verb: 'get-tree', key }) as const);
    for (const entry of await consul.readAll(reads, options)) found.set(entry.key, entry);
  }
  const rule = `key_prefix "${prefix}/.agents/" { policy = "read" }`;
  const missing = keys.filter((key) => !found.has(key));
  // A transaction leaves out what may not be read. One rule is for all agents, so one of them tells.
  for (const key of missing.slice(0, 1)) await consul.get(key, { ...options, rule });
  return new Map(nodes.map((node) => [node, seenOf(found.get(agentKey(prefix, node)))]));
}

/** Without a session nobody holds the key, whatever it says. */
function seenOf(entry: Entry | undefined): AgentSeen {
  if (entry?.session === undefined) return { kind: 'absent' };
  try {
    return { kind: 'there', document: decodeAgent(entry) };
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    return { kind: 'unreadable', why: error.message };
  }
}
