/** `runlock release` of a run that waits without a slot: no other host can end it, so what it waits for is told. */
import { isRunlockError } from '../../errors.ts';
import { decodeOutside, isWaiting } from '../../lock/outside.ts';
import type { OutsideRecord } from '../../lock/outside.ts';
import type { ReleaseResult, Target } from './released.ts';

type Outside = Extract<ReleaseResult, { kind: 'outside' }>;

/** Undefined: the node does not wait so, or the node itself asks without --force. */
export async function findOutside({
  consul,
  keys,
  options,
  itself,
  signal,
}: Target): Promise<Outside | undefined> {
  const { owner: node, group, force } = options;
  if (itself && !force) return undefined;
  const { entry } = await consul.get(keys.outside(node), { signal, rule: keys.rule });
  if (!entry || !isWaiting(entry)) return undefined;
  try {
    const { run, since, command, when, gate, turn } = decodeOutside(entry);
    return {
      kind: 'outside',
      node,
      group,
      run,
      since,
      command,
      when,
      ...servicesOf(gate),
      ...(turn && { turn }),
    };
  } catch (error) {
    // Any node of the group may have written anything there.
    if (isRunlockError(error, 'incompatible')) return undefined;
    throw error;
  }
}

const servicesOf = (gate: OutsideRecord['gate']) => gate && { services: gate.services };
