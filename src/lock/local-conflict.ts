/** Whether another run of the same node stands in the way, or only what a dead one left. */
import { isNobody } from '../platform/deps.ts';
import type { Host } from '../platform/deps.ts';
import type { RetryOptions } from '../consul/consul.ts';
import { nodeMark } from './context.ts';
import type { RunContext } from './context.ts';
import { trySend } from './grant.ts';
import type { Progress } from './grant.ts';
import { decodeNodeMark } from './records.ts';
import type { Claim, Runner } from './records.ts';
import type { Session } from '../consul/session.ts';
import { isElsewhere, isLeft } from './slot.ts';
import type { Owner } from './slot.ts';
import { markNode } from './transactions.ts';

/** This node already runs or waits in the group. */
export type Busy =
  | { readonly kind: 'same-node'; readonly pid: number; readonly since: string }
  /** A run under this node's name may be under way on another machine. `host`: what that one is called. */
  | {
      readonly kind: 'elsewhere';
      readonly pid: number;
      readonly since: string;
      readonly host?: string;
      /** The slot that it holds by `acquire`: nothing of it runs. */
      readonly holds?: number;
    }
  /** Nothing of runlock watches these any more, and they still run. */
  | {
      readonly kind: 'orphan';
      readonly run: string;
      readonly pids: readonly number[];
      /** Where they are, when none of them has a pid here. */
      readonly cgroup?: string;
    }
  /** Nothing of its runlock is left, and what it started is another user's, so nobody but root can see whose it is. */
  | { readonly kind: 'another-user'; readonly uid: number }
  /** `acquire` holds a slot, and nothing of it runs. */
  | { readonly kind: 'held'; readonly slot: number; readonly owner: Owner };

/** Another run of this node, or of a namesake, is under way. */
export function otherRun(me: Runner, other: Runner & { readonly since: string }): Busy {
  const { pid, since, host } = other;
  if (!isElsewhere(me, other)) return { kind: 'same-node', pid, since };
  return { kind: 'elsewhere', pid, since, ...(host !== undefined && { host }) };
}

/** The guard needs about a second to kill what a dead runlock left, on a busy host several; after this long it never will. */
const GUARD_GRACE_MS = 10_000;
const LOOK_AGAIN_MS = 100;

/**
 * Whether the process is alive on this boot of this host. `unknown`: it ran on another one. `elsewhere`: on this one, in
 * another namespace, where its pid or its start time are not those that are seen here.
 */
export function lifeOf(host: Host, runner: Runner): 'alive' | 'dead' | 'elsewhere' | 'unknown' {
  const { bootId } = host;
  if (bootOf(runner.bootId) !== bootOf(bootId)) return 'unknown';
  if (runner.bootId !== bootId) return 'elsewhere';
  const born = host.startTime(runner.pid);
  if (born === undefined && host.hidden(runner.pid)) return 'alive';
  return born === runner.startTime ? 'alive' : 'dead';
}

const bootOf = (bootId: string) => bootId.split(' ')[0];

/**
 * What still runs of the run that made this claim, once its guard has had its time. `isLocked`: a session holds its slot,
 * so whoever made it may be alive.
 */
export async function findOrphan(
  context: RunContext,
  { claim, isLocked }: { readonly claim: Claim; readonly isLocked: boolean },
  signal: AbortSignal,
): Promise<Busy | undefined> {
  const ended = isLeft(claim) || claim.state === 'held';
  if (ended || claim.run === context.run.id) return undefined;
  const runner = lifeOf(context.deps.host, claim);
  if (runner === 'unknown') return undefined;
  if (runner === 'alive') return { kind: 'same-node', pid: claim.pid, since: claim.since };
  if (runner === 'elsewhere' && isLocked) return undefined;
  return (runner === 'dead' && unseen(context, claim)) || orphans(context, claim, signal);
}

/** Of another user's run nothing can be read: neither what it wrote down nor its marks. Root reads all. */
function unseen({ run }: RunContext, { uid }: Runner): Busy | undefined {
  const own = run.runner.uid;
  if (uid === undefined || own === undefined || uid === own || own === 0) return undefined;
  return { kind: 'another-user', uid };
}

async function orphans(
  { deps }: RunContext,
  { run, uid }: Pick<Claim, 'run' | 'uid'>,
  signal: AbortSignal,
): Promise<Busy | undefined> {
  const until = deps.clock.monotonicMs() + GUARD_GRACE_MS;
  for (;;) {
    const found = deps.host.survivors(run, deps.emit, uid);
    const { pids, cgroup, guarded } = found;
    if (isNobody(found) && (!guarded || deps.clock.monotonicMs() >= until)) return undefined;
    if (deps.clock.monotonicMs() >= until)
      return { kind: 'orphan', run, pids, ...(cgroup !== undefined && { cgroup }) };
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
    if (lifeOf(context.deps.host, mark) !== 'dead') return otherRun(run.runner, mark);
    const left = unseen(context, mark) ?? (await orphans(context, mark, options.signal));
    if (left) return left;
  }
  await consul.destroySession(entry.session, options);
  return undefined;
}

/**
 * Whoever waits outside the queue, for its own claim, marks its node: another run of it is busy at once, `status` shows that
 * it waits, and an operator can send it away. `node`: another run has the mark; `again`: all has to start anew.
 */
export async function markWaiting(
  context: RunContext,
  session: Session,
  progress: Progress,
): Promise<'marked' | 'node' | 'again'> {
  const { keys, run } = context;
  // Who loses its mark looks whether an operator took it.
  progress.newest.sent = true;
  const steps = markNode(keys, session.id, { ...nodeMark(context), node: run.node });
  const result = await trySend(context, steps, progress.signal);
  if (result?.kind === 'done') return 'marked';
  return result?.obstacle === 'node' ? 'node' : 'again';
}
