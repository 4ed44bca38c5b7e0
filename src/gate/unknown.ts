/**
 * Rejects names that Consul's catalogue does not know: a typing error must not look like a service that can spare the
 * node.
 */
import type { Consul } from '../consul/consul.ts';
import { RunlockError } from '../errors.ts';
import { nearest } from '../text/nearest.ts';

/** How long to wait for the names for a hint. The error is reported without the hint if they come later. */
const HINT_MS = 5_000;

/** @throws RunlockError `config`, always. `rule`: the rule that the token may lack to see the node. */
export async function refuseNode(
  consul: Consul,
  { node, rule }: { node: string; rule?: string },
  signal: AbortSignal,
): Promise<never> {
  const known = await namesOf(consul, 'nodes', signal);
  const hidden = rule === undefined ? '' : ', or the token may not read it';
  const give = rule === undefined ? '' : `, give the token the rule: ${rule}`;
  throw new RunlockError(
    'config',
    `Consul's catalogue at ${consul.address} has no node '${node}'${hidden}${didYouMean(nearestNode(node, known))}; correct --node${give}, or give --allow-unknown-service if it is not registered yet`,
  );
}

/** @throws RunlockError `config`, always. `services`: at least one. */
export async function refuseServices(
  consul: Consul,
  services: readonly string[],
  signal: AbortSignal,
): Promise<never> {
  const known = await namesOf(consul, 'services', signal);
  const named = services.map((name) => `${name}${didYouMean(nearestService(name, known))}`).join(', ');
  throw new RunlockError(
    'config',
    `no instances of ${named} in Consul's catalogue at ${consul.address}; correct --service, or give --allow-unknown-service if this node will have the first one`,
  );
}

const didYouMean = (name: string | undefined) => (name === undefined ? '' : ` (did you mean '${name}'?)`);

/** The known node with the same host name, ignoring domain and case; otherwise the one with the most similar name. */
export function nearestNode(node: string, known: readonly string[]): string | undefined {
  const first = (name: string) => name.toLowerCase().split('.')[0];
  return known.find((name) => first(name) === first(node)) ?? nearest(node, known);
}

/** The known service with the same name in another case; otherwise the one with the most similar name. */
export function nearestService(service: string, known: readonly string[]): string | undefined {
  const lower = service.toLowerCase();
  return known.find((name) => name.toLowerCase() === lower) ?? nearest(service, known);
}

async function namesOf(
  consul: Consul,
  of: 'services' | 'nodes',
  signal: AbortSignal,
): Promise<readonly string[]> {
  const late = AbortSignal.timeout(HINT_MS);
  try {
    return await consul.catalogueNames(of, { signal: AbortSignal.any([signal, late]), retryForMs: 0 });
  } catch {
    signal.throwIfAborted();
    return [];
  }
}
