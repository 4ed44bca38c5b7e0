/** Whether another run of the same node stands in the way, or only what a dead one left. */
import type { RetryOptions } from '../consul.ts';
import type { RunContext } from './context.ts';
import { decodeNodeMark } from './records.ts';
import type { Claim, Runner } from './records.ts';
import { isLeft } from './slot.ts';
import type { Owner } from './slot.ts';

/** This node already runs or waits in the group. */
export type Busy =
  | { readonly kind: 'same-node'; readonly pid: number; readonly since: string }
  /** Nothing of runlock watches these any more, and they still run. */
  | { readonly kind: 'orphan'; readonly run: string; readonly pids: readonly number[] }
  /** `acquire` holds a slot, and nothing of it runs. */
  | { readonly kind: 'held'; readonly slot: number; readonly owner: Owner };

/** The guard needs about a second to kill what a dead runlock left, on a busy host several; after this long it never will. */
const GUARD_GRACE_MS = 10_000;
const LOOK_AGAIN_MS = 100;

/** Whether the process is alive on this boot of this host. `unknown`: it ran on another one. */
function look({ deps }: RunContext, runner: Runner): 'alive' | 'dead' | 'unknown' {
  if (runner.bootId !== deps.host.bootId) return 'unknown';
  const born = deps.host.startTime(runner.pid);
  if (born === undefined && deps.host.hidden(runner.pid)) return 'alive';
  return born === runner.startTime ? 'alive' : 'dead';
}

/** What still runs of the run that made this claim, once its guard has had its time. */
export async function findOrphan(
  context: RunContext,
  claim: Claim,
  signal: AbortSignal,
): Promise<Busy | undefined> {
  const ended = isLeft(claim) || claim.state === 'held';
  if (ended || claim.run === context.run.id) return undefined;
  const runner = look(context, claim);
  if (runner === 'unknown') return undefined;
  if (runner === 'alive') return { kind: 'same-node', pid: claim.pid, since: claim.since };
  const pids = await survivors(context, claim.run, signal);
  return pids.length > 0 ? { kind: 'orphan', run: claim.run, pids } : undefined;
}

async function survivors({ deps }: RunContext, run: string, signal: AbortSignal): Promise<readonly number[]> {
  const until = deps.clock.monotonicMs() + GUARD_GRACE_MS;
  for (;;) {
    const { pids, guarded } = deps.host.survivors(run, deps.log);
    if ((pids.length === 0 && !guarded) || deps.clock.monotonicMs() >= until) return pids;
    await deps.clock.sleep(LOOK_AGAIN_MS, { signal });
  }
}

/**
 * Looks at who has this node's mark. If that process is provably dead, with all it had started, its session is
 * destroyed: it would end by itself, up to twice its TTL later. Undefined: nothing stands in the way any more.
 */
export async function clearDeadMark(context: RunContext, options: RetryOptions): Promise<Busy | undefined> {
  const { consul, keys, run } = context;
  const { entry } = await consul.get(keys.node(run.node), { ...options, rule: keys.rule });
  if (entry?.session === undefined) return undefined;
  const mark = decodeNodeMark(entry);
  if (mark.run !== run.id) {
    if (look(context, mark) !== 'dead') return { kind: 'same-node', pid: mark.pid, since: mark.since };
    const pids = await survivors(context, mark.run, options.signal);
    if (pids.length > 0) return { kind: 'orphan', run: mark.run, pids };
  }
  await consul.destroySession(entry.session, options);
  return undefined;
}
