/** Checks the agent for maintenance: a node can only be taken out of service at its own agent. */
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import { RunlockError } from '../errors.ts';

/** @throws RunlockError `config`: the agent at the address of `--agent` is another node's. */
export async function checkAgent(consul: Consul, node: string, signal: AbortSignal): Promise<void> {
  const rule = `agent "${node}" { policy = "read" }`;
  const self = await consul.agentSelf({ ...FIRST_CONTACT, signal, rule });
  if (self.node === node) return;
  throw new RunlockError(
    'config',
    `--agent ${consul.address} is the agent of ${self.node}, not of ${node}; correct --agent or --node`,
  );
}

/**
 * @throws RunlockError `usage`: the local agent is another node's, and only the node's own agent can change its
 * maintenance.
 */
export function requireAgent(node: string, local: string): void {
  if (node === local) return;
  throw new RunlockError(
    'usage',
    `maintenance of ${node} needs its own agent, and the local agent is that of ${local}; give the agent of ${node} with --agent ADDRESS`,
  );
}
