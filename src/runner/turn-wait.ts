/** How a run waits for its node's turn on this host. Loaded for such runs only. */
import { watch } from 'node:fs';
import type { Consul } from '../consul/consul.ts';
import type { TurnBusy, WaitForTurn } from '../lock/context.ts';
import type { Deps, Waiting } from '../platform/deps.ts';
import type { Turn, TurnHolder, TurnLook } from '../process/turn.ts';
import { recordWaits } from './outside-record.ts';

export interface TurnWait {
  readonly consul: Consul;
  readonly turn: Turn;
  readonly node: string;
  /** The run has just left a queue for that. */
  readonly leftQueue: boolean;
  /** What others see of the run. */
  readonly of: Pick<
    Parameters<typeof recordWaits>[1],
    'prefix' | 'groups' | 'run' | 'sessionTtlMs' | 'command' | 'publish' | 'during'
  >;
  /** Gets what has to be awaited before runlock ends. */
  readonly later: (gone: Promise<void>) => void;
}

/** Shorter waits are not reported. */
const QUIET_MS = 400;
/** A run that was killed changes nothing in the folder, so it is looked for this often. */
const LOOK_MS = 1_000;
/** What a dead run left is given this long: its guard ends it within seconds, or never will. */
const GRACE_MS = 10_000;

type Others = Extract<TurnLook, { kind: 'held' | 'left-over' }>;

/** Waits until the turn is the run's. */
export async function waitForTurn(
  { consul, turn, node, of, leftQueue, later }: TurnWait,
  deps: Deps,
  waiting: Waiting,
): ReturnType<WaitForTurn> {
  const look = () => onlyOthers(turn.look(node));
  const seen = look();
  if (!seen) return undefined;
  const record = recordWaits({ ...deps, consul }, { ...of, node, when: [], turn: toHolder(seen.by) });
  try {
    return await record.during(waiting, () => waitFor(deps, { turn, look, node, of, leftQueue }, waiting));
  } finally {
    later(record.gone());
  }
}

type Waits = Pick<TurnWait, 'turn' | 'node' | 'of'> & {
  readonly leftQueue: boolean;
  readonly look: () => Others | undefined;
};

async function waitFor(
  deps: Deps,
  { turn, look, ...run }: Waits,
  { signal, patience, either }: Waiting,
): Promise<TurnBusy | undefined> {
  const { clock } = deps;
  const startedMs = clock.monotonicMs();
  let leftSinceMs: number | undefined;
  let told: string | undefined;
  for (;;) {
    const seen = look();
    if (!seen) return undefined;
    const nowMs = clock.monotonicMs();
    if (seen.kind === 'left-over') leftSinceMs ??= nowMs;
    else leftSinceMs = undefined;
    // What is left is waited for even without patience, as for a slot of the node's own.
    const isOver = leftSinceMs === undefined ? patience.aborted : nowMs - leftSinceMs >= GRACE_MS;
    if (isOver) {
      turn.leave();
      return { kind: 'turn', ...toBusy(seen) };
    }
    if (told !== seen.by.run && nowMs - startedMs >= QUIET_MS) {
      told = seen.by.run;
      emitWaits(deps, run, seen);
    }
    const pauseMs = told === undefined ? QUIET_MS : LOOK_MS;
    const ends = seen.kind === 'left-over' ? signal : either;
    await untilChange(deps, turn.folder(), pauseMs, ends).catch(() => signal.throwIfAborted());
  }
}

function onlyOthers(look: TurnLook): Others | undefined {
  return look.kind === 'held' || look.kind === 'left-over' ? look : undefined;
}

const toHolder = ({ pid, command, groups }: TurnHolder) => ({ pid, command, groups });

function toBusy(seen: Others): Omit<TurnBusy, 'kind'> {
  const busy = { ...toHolder(seen.by), since: seen.by.since };
  if (seen.kind === 'held') return busy;
  const { pids, cgroup } = seen;
  return { ...busy, left: { pids, ...(cgroup !== undefined && { cgroup }) } };
}

function emitWaits(
  { clock, emit }: Deps,
  { node, of, leftQueue }: Pick<Waits, 'node' | 'of' | 'leftQueue'>,
  seen: Others,
): void {
  const { since, ...other } = toBusy(seen);
  const detail = { ...other, forMs: Math.max(0, clock.now() - Date.parse(since)) };
  const group = of.groups.join(',');
  const holder = toHolder(seen.by);
  emit({
    event: 'turn-waits',
    group,
    node,
    run: of.run,
    holder,
    ...(leftQueue && { leftQueue: true as const }),
    detail,
  });
}

/** Until something in the folder changes, or the time is over. @throws the signal's reason. */
async function untilChange(
  { clock }: Deps,
  folder: string | undefined,
  ms: number,
  ends: AbortSignal,
): Promise<void> {
  const changed = new AbortController();
  const either = AbortSignal.any([ends, changed.signal]);
  const close = onChange(folder, () => changed.abort());
  try {
    await clock.sleep(ms, { signal: either });
  } catch (error) {
    if (ends.aborted) throw error;
  } finally {
    close();
  }
}

/** Returns what ends it. A folder that can't be watched is only looked at now and then. */
function onChange(folder: string | undefined, act: () => void): () => void {
  if (folder === undefined) return () => undefined;
  try {
    const watcher = watch(folder, { persistent: false }, act);
    watcher.on('error', () => watcher.close());
    return () => watcher.close();
  } catch {
    return () => undefined;
  }
}
