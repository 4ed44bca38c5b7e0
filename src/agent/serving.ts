/** Whether what stands below a principal's path is that principal's word: only if this node can't write it too. */
import type { Consul, Right } from '../consul/consul.ts';
import { requestKeys } from '../jobs/keys.ts';
import type { Serving } from './known.ts';

export interface ServingRequest {
  readonly prefix: string;
  readonly requests: RequestsChoice;
  readonly principals: readonly string[];
}

/** `trust-everybody`: whoever can write to Consul may ask, as any principal. */
export type RequestsChoice = 'served' | 'trust-everybody';

/**
 * Asks Consul which rights this agent's own token has. Every process of the node, and every other node with such a token, could
 * ask as each principal below whose path it may write. Without ACLs everybody can.
 */
export async function servingOf(
  consul: Pick<Consul, 'may'>,
  { prefix, requests, principals }: ServingRequest,
  options: { readonly signal: AbortSignal },
): Promise<Serving> {
  if (requests === 'trust-everybody' || principals.length === 0) return { kind: 'served' };
  const rights = principals.map((name): Right => {
    const key = requestKeys(prefix, name).spec('runlock');
    return { resource: 'key', name: key, access: 'write' };
  });
  const answers = await consul.may(rights, options);
  if (answers.every((may) => may === false)) return { kind: 'served' };
  const open = principals.filter((_, i) => answers[i] !== false);
  if (answers.includes(true))
    return refused(
      `this node's token may write ${open.map((name) => requestKeys(prefix, name).prefix).join(', ')}, or Consul's ACLs are off, so others could ask in the name of ${open.join(', ')}`,
    );
  return refused(`Consul can't tell whether this node's token may write ${prefix}/.requests/`);
}

const refused = (why: string): Serving => ({
  kind: 'refused',
  why: `${why}; give the node's token only what 'runlock policy node' prints, or set --requests trust-everybody`,
});
