/**
 * Puts a node back into service: the last run of the node that needs a maintenance ends it
 * (docs/adr/0020-last-one-out.md).
 */
import type { Deps } from '../platform/deps.ts';
import { isNobody } from '../platform/deps.ts';
import { reasonOf } from '../errors.ts';
import type { OutMark } from '../lock/records.ts';
import { beginLeaving, covers, overlap, removeMarks, standings } from './marks.ts';
import type { MarkEffects, Marked, Marker, Standing } from './marks.ts';
import { END_MS, LAST_TRY_MS, endModes, modesOf } from './maintenance.ts';
import type { Limits, Mode, NodeAgent } from './maintenance.ts';

export interface ExitEffects extends MarkEffects {
  /** The node's own agent. */
  readonly agent: NodeAgent;
}

export interface Exit extends Marker {
  /** The services whose maintenance to end; that of the whole node is always included. */
  readonly services: readonly string[] | 'all';
  /** Which of these maintenances to consider; all by default. */
  readonly only?: (mode: Mode) => boolean;
  /** The run's mark; undefined: the run has none. */
  readonly mark: OutMark | undefined;
  /**
   * `undo`: ends what this run set, and what other runs left on for it. `good`: also ends what runs left that have
   * ended. `by-hand`: ends everything that no run under way needs.
   */
  readonly how: 'undo' | 'good' | 'by-hand';
}

/** What stays in maintenance because another run of the node needs it. */
export interface Kept {
  readonly mode: Mode;
  readonly by: Marked;
  readonly standing: Standing;
}

export type Exited =
  | {
      readonly kind: 'done';
      readonly ended: readonly Mode[];
      /** Maintenance that runlock did not set. */
      readonly foreign: readonly Mode[];
      readonly kept: readonly Kept[];
    }
  /** Some of the maintenance may still be on. */
  | { readonly kind: 'stays'; readonly why: string };

const NO_MARK: OutMark = { services: [], groups: [] };

/** As `leaveService`, with its own deadline; never throws. */
export async function exitAtLast(effects: ExitEffects, exit: Exit): Promise<Exited> {
  try {
    const limits = { signal: AbortSignal.timeout(END_MS + LAST_TRY_MS), retryForMs: END_MS };
    return await leaveService(effects, exit, limits);
  } catch (error) {
    return { kind: 'stays', why: reasonOf(error) };
  }
}

/** @throws RunlockError when the maintenance could not be ended; the signal's reason when it aborts. */
export async function leaveService(
  effects: ExitEffects,
  exit: Exit,
  limits: Limits,
): Promise<Extract<Exited, { kind: 'done' }>> {
  const { agent, deps } = effects;
  const { only = () => true, mark } = exit;
  const { signal } = limits;
  const modes = (await modesOf(agent, exit.services, limits)).filter(only);
  const own = modes.filter(({ run }) => run !== undefined);
  const foreign = modes.filter(({ run }) => run === undefined);
  if (own.length === 0 && mark === undefined) return { kind: 'done', ended: [], foreign, kept: [] };
  const leaving = await beginLeaving(effects, exit, { mark: mark ?? NO_MARK, signal });
  try {
    const { others } = leaving;
    const known = await standings(effects, exit, { marks: others, signal });
    const needs = others.filter((one) => isNeed(deps, { exit, standing: known.get(one.run) }));
    const kept = own.flatMap((mode): Kept[] => {
      const by = needs.find((one) => covers(one, mode));
      return by ? [{ mode, by, standing: known.get(by.run) ?? { kind: 'unknown' } }] : [];
    });
    const mine = own.filter((mode) => mayEnd(deps, { exit, mode, others }));
    const ended = await endModes(
      agent,
      mine.filter((mode) => !kept.some((one) => one.mode === mode)),
      limits,
    );
    const isLeftOn = mark !== undefined && kept.some(({ mode }) => mine.includes(mode));
    let now = isLeftOn ? await leaving.leaveOn() : await leaving.done();
    const isThere = ({ run }: Marked) => now.some((one) => one.run === run && !isLeft(one));
    // The runs for which the maintenance was left on have left meanwhile, so remove this run's mark too.
    if (isLeftOn && !needs.some(isThere)) now = await leaving.done();
    const over = now.filter((one) => isSpent(one, { exit, needs, standing: known.get(one.run) }));
    await removeMarks(effects, { ...exit, over }, signal);
    return { kind: 'done', ended, foreign, kept };
  } catch (error) {
    // Remove the mark, so that the next run that goes out need not wait for this one.
    await leaving.done(AbortSignal.timeout(LAST_TRY_MS)).catch(() => undefined);
    throw error;
  }
}

function isNeed(
  { host, emit }: Deps,
  { exit, standing }: { exit: Exit; standing: Standing | undefined },
): boolean {
  switch (standing?.kind) {
    case undefined:
    case 'none':
      return false;
    case 'unknown':
      return true;
    case 'by-hand':
      return exit.how !== 'by-hand';
    case 'claimed': {
      if (exit.how !== 'by-hand') return true;
      const { claim, locked } = standing;
      if (!locked || (claim.state !== 'running' && claim.state !== 'evicted')) return false;
      // The lock does not prove that the run is alive, because its session lasts a while longer, so check the process.
      const isHere = claim.bootId === host.bootId;
      return (
        !isHere || host.startTime(claim.pid) === claim.startTime || !isNobody(host.survivors(claim.run, emit))
      );
    }
  }
}

function mayEnd(
  { host, emit }: Deps,
  { exit, mode, others }: { exit: Exit; mode: Mode; others: readonly Marked[] },
): boolean {
  const { run } = mode;
  if (run === undefined) return false;
  // A run with a mark in state `left` or `leaving` no longer needs the maintenance, and only left it on for others.
  if (run === exit.run || exit.how === 'by-hand' || others.some((one) => isLeft(one) && covers(one, mode)))
    return true;
  return exit.how === 'good' && isNobody(host.survivors(run, emit));
}

const isLeft = ({ mark }: Marked) => mark?.state !== undefined;

/** Whether a mark is no longer needed and can be removed. A run that is leaving removes its own mark. */
function isSpent(
  { run, mark }: Marked,
  { exit, needs, standing }: { exit: Exit; needs: readonly Marked[]; standing: Standing | undefined },
): boolean {
  if (!mark || mark.state === 'leaving') return false;
  if (mark.state === 'left' || standing?.kind === 'none')
    return !needs.some((need) => !need.mark || overlap(need.mark, mark));
  if (exit.how !== 'by-hand' || needs.some((need) => need.run === run)) return false;
  const { services } = exit;
  return services === 'all' || mark.node === true || mark.services.some((one) => services.includes(one));
}
