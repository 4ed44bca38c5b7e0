/** `acquire --when`: waits for conditions without a slot, as `exec` does. Loaded only where there are conditions. */
import { runOf } from '../../conditions/own-run.ts';
import type { Condition } from '../../conditions/parse.ts';
import { FIRST_CONTACT } from '../../consul/consul.ts';
import { agentNode } from '../../consul/session.ts';
import { isHeld, readSlots } from '../../lock/decide.ts';
import { groupKeys } from '../../lock/keys.ts';
import type { Waiting } from '../../platform/deps.ts';
import { recordWaits } from '../../runner/outside-record.ts';
import { lookAt, tryFromOutside } from '../../runner/outside.ts';
import type { Closed, Looked } from '../../runner/outside.ts';
import type { ExecDeps } from '../../runner/options.ts';
import { runConditions } from '../../runner/when.ts';

type Effects = Pick<ExecDeps, 'consul' | 'clock' | 'random' | 'host' | 'emit' | 'terminal' | 'env'>;

interface When {
  readonly prefix: string;
  readonly group: string;
  readonly slots: number;
  /** Undefined: the one that the local agent is on. */
  readonly node?: string;
  readonly sessionTtlMs: number;
  readonly run: string;
  readonly when: readonly Condition[];
  readonly waiting: Waiting;
}

/**
 * Waits for the conditions, then calls `hold` with the look that it has to do once it has the slot. If they are not met
 * by then, waits again. A node that holds the slot already waits for nothing: its conditions were met when it got it.
 */
export async function holdWhen<T extends { readonly kind: string }>(
  deps: Effects,
  asked: When,
  hold: (look: (signal: AbortSignal) => Promise<Looked>) => Promise<T | Closed>,
): Promise<T | Closed> {
  const { prefix, group, slots, node, run, sessionTtlMs, when, waiting } = asked;
  const groups = [group];
  const seats = [{ group, slots }];
  const conditions = runConditions(deps, { prefix, seats, node, run, when, inside: runOf(deps.env) });
  const trying = waiting.patience;
  const holdOnce = () => hold((signal) => lookAt(deps.clock, conditions.all(), { signal, trying }));
  if (await holdsAlready(deps, asked)) {
    const held = await holdOnce();
    if (held.kind !== 'closed') return held;
  }
  const record = recordWaits(deps, { prefix, groups, node, run, sessionTtlMs, command: 'acquire', when });
  try {
    const outside = { run, group, gate: undefined, conditions, record, waiting };
    return await tryFromOutside(deps, outside, holdOnce);
  } finally {
    await record.gone();
  }
}

async function holdsAlready(deps: Effects, { prefix, group, node: named, waiting }: When): Promise<boolean> {
  const { consul, clock } = deps;
  const { signal } = waiting;
  const keys = groupKeys(prefix, group);
  const asked = { name: 'runlock acquire', ttlMs: SESSION_TTL_MS, signal, ...FIRST_CONTACT };
  const node = named ?? (await agentNode({ consul, deps }, asked));
  const { entries } = await consul.list(keys.slotPrefix, { signal, ...FIRST_CONTACT, rule: keys.rule });
  return readSlots(prefix, entries).some(
    ({ owner }) =>
      owner &&
      owner.claim.node === node &&
      owner.claim.state === 'held' &&
      isHeld(owner.claim, clock.latest()),
  );
}

/** The session is made only to learn the agent's node name. */
const SESSION_TTL_MS = 30_000;
