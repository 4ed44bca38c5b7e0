/** How a run ended, in one line for people and in fields for machines. */
import type { Deps } from '../../platform/deps.ts';
import { assertNever } from '../../errors.ts';
import type { GivenBack } from '../../lock/release.ts';
import type { Blocked, Grant } from '../../lock/grant.ts';
import type { Outcome } from '../../lock/records.ts';
import type { Over } from '../../lock/lease.ts';
import { hint } from '../../text/suggested-command.ts';
import { formatAge } from '../../text/age.ts';

/** Why runlock ended the command, if it did; `group`: where the lease was over. */
export type Cause =
  (Over & { readonly group: string }) | { readonly kind: 'timed-out' } | { readonly kind: 'signal' };

/** The names of a run in every line about it. */
export function placeOf({ context, slot }: Grant) {
  return { group: context.keys.group, node: context.run.node, slot, run: context.run.id };
}

/** At once: to end the command may take a while, and what `sayEnd` says comes after that. */
export function sayOver({ log }: Deps, grant: Grant, over: Over): void {
  const { group } = grant.context.keys;
  log('info', `${whyOver(over, group)}; ending the command`, {
    event: 'lost',
    ...placeOf(grant),
    why: over.kind,
  });
}

/** The run had its slots, or some of them, and one was taken away before the command was started. */
export function sayNothingStarted({ log }: Deps, grant: Grant, over: Over): void {
  const { group } = grant.context.keys;
  // One group's slot can only be late; of several the earlier ones are held for a while.
  if (over.kind === 'cut-off' && grant.context.run.groups === undefined) {
    log('error', 'the slot was granted too long ago: others may follow; nothing was started', {
      event: 'lost',
      ...placeOf(grant),
      why: 'late',
    });
    return;
  }
  log('error', `${whyOver(over, group)}; nothing was started`, {
    event: 'lost',
    ...placeOf(grant),
    why: over.kind,
  });
}

/** One of several groups was frozen after the run had got its slot there, and before it got the last one. */
export function sayFrozenMeanwhile({ log }: Deps, grant: Grant, { at, freeze }: Frozen): void {
  const { group, node, run } = placeOf(grant);
  const { by, reason, until } = freeze;
  log('info', `${group} was frozen by ${by} (${reason}) meanwhile; all slots are given back`, {
    event: 'frozen',
    group,
    node,
    run,
    at,
    by,
    reason,
    ...(until !== undefined && { until }),
  });
}

type Frozen = Extract<Blocked, { kind: 'frozen' }>;

/** A slot was given up before anything was started. `given`: what became of one that was evicted. */
export function sayDeclined({ log }: Deps, grant: Grant, given: GivenBack | undefined): void {
  const { group, node, slot } = placeOf(grant);
  const stays = given?.kind === 'stays';
  const what = stays
    ? sayGivenBack(given, { prefix: grant.context.keys.root, node, group, slot })
    : `gave slot ${slot} of ${group} back`;
  log(stays ? 'warning' : 'info', `${what}; nothing was started`, {
    event: 'given-back',
    ...placeOf(grant),
  });
}

function whyOver(over: Over, group: string): string {
  switch (over.kind) {
    case 'evicted':
      return `${over.by} evicted the run from ${group}`;
    case 'lost':
      return `lost the lock of ${group} (${over.why})`;
    case 'cut-off':
      return `nothing showed the lock of ${group} for so long that others may follow`;
    default:
      return assertNever(over);
  }
}

/** The command has ended, and Consul is slow or silent. */
export function sayReleasing({ log }: Deps, grants: readonly [Grant, ...Grant[]], exitCode: number): void {
  const { command, node, id: run } = grants[0].context.run;
  const groups = grants.map(({ context }) => context.keys.group);
  const slots = grants.map(({ slot }, i) => `slot ${slot} of ${groups[i] ?? ''}`);
  log('info', `${command} ended with ${exitCode}; waiting for Consul to take back ${slots.join(', ')}`, {
    event: 'releasing',
    group: groups.join(','),
    node,
    run,
    exitCode,
  });
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

export function sayEnd({ log }: Deps, grant: Grant, end: End): void {
  const { context } = grant;
  const { group, node, slot } = placeOf(grant);
  const { outcome, exitCode, cause, given } = end;
  const kept = given.kind === 'released' ? given.kept : undefined;
  const fields = {
    event: 'ended',
    ...placeOf(grant),
    outcome,
    exitCode,
    ranMs: Math.round(end.ranMs),
    released: kept ? 'held' : given.kind,
    ...(kept?.heldUntil !== undefined && { heldUntil: kept.heldUntil }),
  };
  const why = whyKilled(cause, group);
  const ran =
    why ?? `${context.run.command} ${endedHow(end)} after ${formatAge(end.ranMs)}${healthAfter(end, node)}`;
  const level = why === undefined && given.kind === 'released' && !given.kept ? 'info' : 'warning';
  log(level, `${ran}; ${sayGivenBack(given, { prefix: context.keys.root, node, group, slot })}`, fields);
}

const endedHow = ({ outcome, exitCode, told }: End): string =>
  outcome === 'interrupted' && told === undefined
    ? `was interrupted and ended with ${exitCode}`
    : `ended with ${exitCode}`;

function healthAfter({ why, told }: End, node: string): string {
  if (why !== undefined) return `, but ${node} was not healthy in time after it (${why})`;
  return told === undefined ? '' : `, but ${told} ended the wait until ${node} is healthy`;
}

/** `group`: whose slot the sentence is about. */
function whyKilled(cause: Cause | undefined, group: string): string | undefined {
  switch (cause?.kind) {
    case 'evicted': {
      const from = cause.group === group ? '' : ` from ${cause.group}`;
      return `the run was evicted${from} by ${cause.by} and killed`;
    }
    case 'lost':
      return `the lock of ${cause.group} was lost (${cause.why}) and the command killed`;
    case 'cut-off': {
      const of = cause.group === group ? '' : ` of ${cause.group}`;
      return `nothing showed the lock${of} for so long that others may follow (Consul silent, or runlock stopped); the command was killed`;
    }
    case 'timed-out':
      return 'the command ran longer than --timeout and was killed';
    case 'signal':
    case undefined:
      return undefined;
    default:
      return assertNever(cause);
  }
}

function sayGivenBack(
  given: GivenBack,
  { prefix, node, group, slot }: { prefix: string; node: string; group: string; slot: number },
): string {
  const release = hint(prefix, 'release', group, '--owner', node);
  switch (given.kind) {
    case 'nothing':
      return `slot ${slot} of ${group} is no longer its own; nothing was given back`;
    case 'stays': {
      // What can't be read stops its next run and a release as well; why it can't says what to do.
      const clear = given.stuck ? '' : `; its next run clears it, or '${release}', which asks first`;
      return `it could not be given back (${given.why}): ${given.keys.join(', ')} stays and keeps others out${clear}`;
    }
    case 'released': {
      if (!given.kept) return `slot ${slot} of ${group} is free again`;
      const until = given.kept.heldUntil === undefined ? '' : `${given.kept.heldUntil} or `;
      return `${node} keeps slot ${slot} of ${group} until ${until}its next good run${given.kept.state === 'failed' ? `; '${release}' clears it` : ''}`;
    }
    default:
      return assertNever(given);
  }
}
