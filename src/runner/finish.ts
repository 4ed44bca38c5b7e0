/** How a run ended, for whoever hears of it. */
import type { Deps } from '../platform/deps.ts';
import type { Cause, Place, RunEvent } from '../events/events.ts';
import type { GivenBack } from '../lock/release.ts';
import type { Grant } from '../lock/head-of-queue.ts';
import type { Outcome } from '../lock/records.ts';

/** The names of a run in every event of it. */
export function placeOf({ context, slot }: Grant): Place {
  return { group: context.keys.group, node: context.run.node, slot, run: context.run.id };
}

/** The command has ended, and Consul is slow or silent. */
export function emitReleasing({ emit }: Deps, grants: readonly [Grant, ...Grant[]], exitCode: number): void {
  const { command, node, id: run } = grants[0].context.run;
  const slots = grants.map(({ slot, context }) => ({ slot, group: context.keys.group }));
  const group = slots.map((one) => one.group).join(',');
  emit({ event: 'releasing', group, node, run, exitCode, detail: { command, slots } });
}

interface End {
  readonly outcome: Outcome;
  readonly exitCode: number;
  readonly ranMs: number;
  readonly cause: Cause | undefined;
  readonly given: GivenBack;
  /** Of a run that was unhealthy: what was not well. */
  readonly why?: string | undefined;
  /** Its command did well, and this signal ended the wait for its node's health. */
  readonly told?: NodeJS.Signals | undefined;
}

export function endOf(grant: Grant, { outcome, exitCode, ranMs, ...end }: End): RunEvent {
  const { keys, run } = grant.context;
  const kept = end.given.kind === 'released' ? end.given.kept : undefined;
  return {
    event: 'ended',
    ...placeOf(grant),
    outcome,
    exitCode,
    ranMs: Math.round(ranMs),
    released: kept ? 'held' : end.given.kind,
    heldUntil: kept?.heldUntil,
    detail: { prefix: keys.root, command: run.command, ...end },
  };
}
