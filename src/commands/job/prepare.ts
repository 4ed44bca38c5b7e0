/** From what a line asks to a request: its targets are looked up, their agents asked, their stages made. */
import { FIRST_CONTACT } from '../../consul/consul.ts';
import { RunlockError } from '../../errors.ts';
import { readAgents } from '../../jobs/read-agents.ts';
import { findNodes, selectionOf } from '../../jobs/find.ts';
import type { Wanted } from '../../jobs/find.ts';
import type { JobRef } from '../../jobs/keys.ts';
import { amountOf, amountText, planTargets } from '../../jobs/plan.ts';
import type { Candidate } from '../../jobs/plan.ts';
import { checkFailures, homeOf, isWaitedFor, resolve } from '../../jobs/resolve.ts';
import type { Resolved, Wish } from '../../jobs/resolve.ts';
import { NO_STAGE } from '../../jobs/stage.ts';
import { namesDigest } from '../../jobs/starter.ts';
import type { NewRequest, Target } from '../../jobs/starter.ts';
import type { SeenKey } from '../../lock/transactions.ts';
import { causesIn } from '../../lock/causes.ts';
import { selectionText } from '../../view/selection.ts';
import type { Platform } from '../platform.ts';
import type { ConsulWays } from '../with-consul.ts';
import type { Beginning } from './request.ts';

/** What `start` and `retry` ask. */
export interface Asking extends Beginning {
  readonly prefix: string;
  readonly json: boolean;
  readonly ref: JobRef;
  readonly task: string;
  readonly params: ReadonlyMap<string, string>;
  readonly wanted: Wanted;
  /** The job that this one retries; its id, and its stage as it was read. */
  readonly retried?: { readonly of: string; readonly stage: SeenKey };
}

/** Its nodes, and what their agents say. */
export interface Found {
  readonly wish: Wish;
  readonly resolved: readonly Resolved[];
}

/** @throws RunlockError `config`: nobody is found; as `findNodes`. */
export async function findTargets({ consul, signal }: ConsulWays, asking: Asking): Promise<Found> {
  const { prefix, task, params, offline, noop = false } = asking;
  const options = { ...FIRST_CONTACT, signal };
  const nodes = await findNodes({ consul, prefix }, asking.wanted, options);
  if (nodes.length === 0)
    throw new RunlockError('config', `no node found: ${selectionText(selectionOf(asking.wanted, ''))}`);
  const wish = { task, params, nodes, principal: asking.ref.principal, offline, noop };
  return { wish, resolved: resolve(wish, await readAgents(consul, { prefix, nodes }, options)) };
}

/** Which targets come when. @throws RunlockError: some can't serve the request; nothing was written. */
export function planOf(
  { wish, resolved }: Found,
  asking: Asking,
): { readonly home: string; readonly targets: readonly Target[] } {
  const home = homeOf(wish, resolved);
  checkFailures(asking.maxFailures ?? 0, resolved);
  return { home, targets: placeTargets({ wish, resolved }, asking) };
}

/** The stage of each, also of those that can't serve the request. */
export const placeTargets = ({ wish, resolved }: Found, asking: Asking): readonly Target[] =>
  planTargets(resolved.map(candidateOf(wish)), { ...asking, offline: offlineOf(asking) });

const candidateOf =
  (wish: Wish) =>
  (found: Resolved): Candidate => ({
    node: found.node,
    agent: isWaitedFor(wish, found) ? 'offline' : found.pausedSince === undefined ? 'ready' : 'paused',
  });

const offlineOf = ({ offline = 'wait' }: Pick<Asking, 'offline'>) => offline;

interface Planned {
  readonly home: string;
  readonly targets: readonly Target[];
}

/** The same for a start that is repeated, but for what may differ. */
export function toRequest(asking: Asking, { home, targets }: Planned, platform: Platform): NewRequest {
  const { ref, task, params, wanted, reason, timeoutMs, expiresMs, retried } = asking;
  const { canary, steps, pauseMs = 0, maxRunning, maxFailures = 0, splayMs, noop } = asking;
  const { clock } = platform.deps;
  const chain = causesIn(platform.env)?.cause;
  const placed = targets.filter(([, stage]) => stage !== NO_STAGE).length;
  return {
    ref,
    spec: {
      nonce: platform.newRunId(),
      task,
      params: Object.fromEntries(params),
      home,
      maxFailures,
      pauseMs,
      offline: offlineOf(asking),
      ...(splayMs !== undefined && { splayMs }),
      ...(maxRunning && { maxRunning: amountOf(maxRunning, placed) }),
      selection: selectionOf(wanted, namesDigest(wanted.nodes ?? [])),
      ...(canary && { canary: amountText(canary) }),
      ...(steps && { steps: steps.map(amountText) }),
      until: new Date(clock.latest() + expiresMs).toISOString(),
      ...(timeoutMs !== undefined && { timeoutMs }),
      ...(noop && { noop }),
      ...(retried && { of: retried.of }),
      ...(chain && { chain }),
      ...(reason !== undefined && { reason }),
      by: platform.operator(),
      at: new Date(clock.now()).toISOString(),
    },
    targets,
    ...(retried && { retried: retried.stage }),
  };
}
