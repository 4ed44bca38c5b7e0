/** The way back into service: the last of a node's runs that needs a maintenance ends it (docs/adr/0020-last-one-out.md). */
import type { Deps } from '../platform/deps.ts';
import { isNobody } from '../platform/deps.ts';
import { reasonOf } from '../errors.ts';
import type { OutMark } from '../lock/records.ts';
import { beginLeaving, covers, overlap, removeMarks, standings } from './marks.ts';
import type { MarkEffects, Marked, Marker, Standing } from './marks.ts';
import { END_MS, LAST_TRY_MS, endModes, modesOf } from './maintenance.ts';
import type { Limits, Mode, NodeAgent } from './maintenance.ts';

export interface ExitEffects extends MarkEffects {
  /** The node's own. */
  readonly agent: NodeAgent;
}

export interface Exit extends Marker {
  /** Of these, and of the node as a whole. */
  readonly services: readonly string[] | 'all';
  /** Which of them it is about; all unless given. */
  readonly only?: (mode: Mode) => boolean;
  /** The run's mark; undefined: it has none. */
  readonly mark: OutMark | undefined;
  /**
   * `undo`: what this run set goes, and what was left on for it. `good`: what runs left that are over, too. `by-hand`: all
   * that no run under way needs.
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
      /** Somebody else's. */
      readonly foreign: readonly Mode[];
      readonly kept: readonly Kept[];
    }
  /** Some may still be on. */
  | { readonly kind: 'stays'; readonly why: string };

const NO_MARK: OutMark = { services: [], groups: [] };

/** With a deadline of its own; never throws. */
export async function exitAtLast(effects: ExitEffects, exit: Exit): Promise<Exited> {
  try {
    const limits = { signal: AbortSignal.timeout(END_MS + LAST_TRY_MS), retryForMs: END_MS };
    return await leaveService(effects, exit, limits);
  } catch (error) {
    return { kind: 'stays', why: reasonOf(error) };
  }
}

/** @throws RunlockError when it could not be done; the signal's reason when it aborts. */
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
    // Whoever needed it has ended it meanwhile.
    if (isLeftOn && !needs.some(isThere)) now = await leaving.done();
    const over = now.filter((one) => isSpent(one, { exit, needs, standing: known.get(one.run) }));
    await removeMarks(effects, { ...exit, over }, signal);
    return { kind: 'done', ended, foreign, kept };
  } catch (error) {
    // Whoever goes out next need not wait for it.
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
      // Its session outlives it for a while.
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
  // One that needs it no more left it on for others, and would have ended it.
  if (run === exit.run || exit.how === 'by-hand' || others.some((one) => isLeft(one) && covers(one, mode)))
    return true;
  return exit.how === 'good' && isNobody(host.survivors(run, emit));
}

const isLeft = ({ mark }: Marked) => mark?.state !== undefined;

/** Whether a mark has done its work. One that is leaving takes its own away. */
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
