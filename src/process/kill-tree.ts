import { kill as send } from 'node:process';

import type { Clock } from '../platform/deps.ts';
import { startTime } from './process-tree.ts';
import type { RunCgroup } from './cgroup.ts';
import type { Member, Tree } from './process-tree.ts';

export interface KillOptions {
  /** Delay from the first signal to KILL, in milliseconds. */
  readonly killAfterMs: number;
  /** The first signal, `SIGTERM` unless given. `none`: the processes were already signalled; only start the delay. */
  readonly signal?: NodeJS.Signals | 'none';
}

/** Ends a tree of processes. Resolves when nothing of it is left. */
export type Kill = (options: KillOptions) => Promise<void>;

const firstPollMs = 20;
const lastPollMs = 200;
/** From KILL on, a runlock inside the tree has this long to release its slot; its own command is dead by then. */
const INNER_GRACE_MS = 3_000;

type Named = Pick<Member, 'pid' | 'startTime'>;

/**
 * Returns the function that ends `tree`. It may be called again while it works: a shorter limit wins, a different
 * signal is sent too. Processes that no signal can end (state D, another user's) are tried again until they are gone.
 * `group`: a process group that holds only the tree, signalled as one. `ended`: resolves when the command itself ends.
 * `cgroup`: the kernel ends all of it at once; look at the tree before, because the kill destroys the lines of descent.
 * `inner`: live runlocks on this host, and their guards. Those in the tree get the same signal, but are killed last.
 */
export function killer(options: {
  tree: Tree;
  group: number | undefined;
  ended: Promise<unknown>;
  clock: Clock;
  cgroup?: Pick<RunCgroup, 'pids' | 'isEmpty' | 'killAll'> | undefined;
  inner?: (() => readonly Named[]) | undefined;
}): Kill {
  const { tree, group, ended, clock, cgroup, inner = () => [] } = options;
  let limitMs = Infinity;
  let signal: NodeJS.Signals | 'none' = 'none';
  let told = new Set<string>();
  let running: Promise<void> | undefined;
  let waiting = new AbortController();

  /** Looks once and acts on the result. Returns whether processes may be left. */
  function round(): boolean {
    const members = look(tree);
    const overMs = clock.monotonicMs() - limitMs;
    if (members === undefined) {
      if (overMs >= INNER_GRACE_MS) cgroup?.killAll();
      return true;
    }
    if (overMs >= 0) killNow(members, overMs < INNER_GRACE_MS ? among(members, inner()) : []);
    else if (signal !== 'none') tell(members, signal);
    return members.length > 0 || isPopulated();
  }

  function killNow(members: readonly Member[], spared: readonly Member[]) {
    if (spared.length > 0) {
      signalAll(
        members.filter((member) => !spared.includes(member)),
        'SIGKILL',
      );
      return;
    }
    const inside = killContained();
    const others = members.filter(({ pid }) => !inside.has(pid));
    signalAll(others, 'SIGKILL', group);
  }

  /** Kills the cgroup and returns the pids that were in it; empty: each process must be signalled by itself. */
  function killContained(): ReadonlySet<number> {
    const inside = attempt(() => cgroup?.pids()) ?? [];
    return cgroup?.killAll() === true ? new Set(inside) : new Set();
  }

  /** Asks the kernel too, because a process that keeps forking and ending may never show up in a look at /proc. */
  const isPopulated = () => cgroup !== undefined && attempt(() => cgroup.isEmpty()) !== true;

  function tell(members: readonly Member[], first: NodeJS.Signals) {
    const living = new Map(members.map((member) => [member.pid, member]));
    const isTold = (member: Member) => told.has(key(member));
    // Do not signal a new child of a signalled process while that lives: the child may be part of its cleanup.
    const isExcused = (member: Member): boolean => {
      const parent = living.get(member.parent);
      return parent !== undefined && (isTold(parent) || isExcused(parent));
    };
    const isFirst = told.size === 0;
    const untold = isFirst
      ? withoutInner(members, inner())
      : members.filter((member) => !isTold(member) && !isExcused(member));
    for (const member of untold) told.add(key(member));
    signalAll(untold, first, isFirst ? group : undefined);
    for (const member of members) if (member.state === 'T') signalMember(member, 'SIGCONT');
  }

  async function run(): Promise<void> {
    let pollMs = firstPollMs;
    // Look twice: a process that forks and ends during the first look hides its child from that look.
    while (round() || round()) {
      waiting = new AbortController();
      const untilLimitMs = limitMs - clock.monotonicMs();
      const ms = untilLimitMs > 0 ? Math.min(pollMs, untilLimitMs) : pollMs;
      await clock.sleep(ms, { signal: waiting.signal }).catch(() => undefined);
      pollMs = Math.min(pollMs * 1.5, lastPollMs);
    }
    await ended;
  }

  void ended.finally(() => waiting.abort());
  return (asked) => {
    const next = asked.signal ?? 'SIGTERM';
    limitMs = Math.min(limitMs, clock.monotonicMs() + asked.killAfterMs);
    if (next !== 'none' && next !== signal) {
      signal = next;
      told = new Set();
    }
    waiting.abort();
    running ??= run();
    return running;
  };
}

function among(members: readonly Member[], named: readonly Named[]): Member[] {
  const keys = new Set(named.map(key));
  return keys.size === 0 ? [] : members.filter((member) => keys.has(key(member)));
}

/**
 * The processes to signal: all but those below a runlock inside the tree, which passes the signal on itself. If both
 * signalled its command, the command could end before the inner runlock gets the signal, and would be taken for failed.
 */
export function withoutInner(members: readonly Member[], inner: readonly Named[]): readonly Member[] {
  const runlocks = new Set(among(members, inner).map(({ pid }) => pid));
  if (runlocks.size === 0) return members;
  const parents = new Map(members.map(({ pid, parent }) => [pid, parent]));
  const isBelow = (pid: number | undefined): boolean =>
    pid !== undefined && (runlocks.has(pid) || isBelow(parents.get(pid)));
  return members.filter(({ parent }) => !isBelow(parent));
}

/** Undefined when the look failed: that proves nothing, so look again. */
export const look = (tree: Tree): Member[] | undefined => attempt(() => tree.members());

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** Signals each of `members` once; those in `group` all at once, so that none of them sees another end first. */
export function signalAll(members: readonly Member[], signal: NodeJS.Signals, group?: number) {
  const grouped = members.filter((member) => member.group === group);
  if (group !== undefined && grouped.length > 0) trySend(-group, signal);
  for (const member of members) if (member.group !== group) signalMember(member, signal);
}

function signalMember(member: Member, signal: NodeJS.Signals) {
  // Since the look, the pid may have been given to another process.
  if (startTime(member.pid) === member.startTime) trySend(member.pid, signal);
}

function trySend(pid: number, signal: NodeJS.Signals) {
  try {
    send(pid, signal);
  } catch {
    // The process is gone, or not ours to signal; the next look will show.
  }
}

function key({ pid, startTime }: Named): string {
  return `${pid}/${startTime}`;
}
