/** `runlock release`: clears a claim that keeps a group, or evicts the run behind it. */
import { FIRST_CONTACT } from '../consul.ts';
import type { Consul } from '../consul.ts';
import type { Deps } from '../deps.ts';
import { RunlockError, assertNever } from '../errors.ts';
import { groupKeys } from '../lock/layout.ts';
import type { Claim } from '../lock/records.ts';
import type { GroupKeys } from '../lock/layout.ts';
import { agentNode } from '../lock/session.ts';
import { readSlots } from '../lock/slot.ts';
import type { Owner, Slot } from '../lock/slot.ts';
import { changeClaim, clearClaim, send } from '../lock/transactions.ts';

export interface ReleaseOptions {
  readonly prefix: string;
  readonly group: string;
  /** Whose claim; this node's own unless given. */
  readonly owner?: string;
  readonly slot?: number;
  readonly force: boolean;
  /** Who asks, for the claim of an evicted run. */
  readonly by: string;
}

export interface Released {
  readonly slot: number;
  readonly node: string;
  readonly state: Claim['state'];
  /** `unwatched`: its session was gone, so the command may still run on that node. */
  readonly how: 'cleared' | 'unwatched' | 'evicted';
}

export type ReleaseResult =
  | {
      readonly kind: 'released';
      readonly node: string;
      readonly group: string;
      readonly claims: readonly Released[];
    }
  | { readonly kind: 'nothing'; readonly node: string; readonly group: string };

interface Target {
  readonly consul: Consul;
  readonly deps: Deps;
  readonly keys: GroupKeys;
  readonly options: ReleaseOptions & { owner: string };
  readonly signal: AbortSignal;
}

/** Somebody else changed the claim at the same moment, again and again: that is no longer chance. */
const TRIES = 10;
const SESSION_TTL_MS = 30_000;

/** @throws RunlockError `refused`: a run is under way, and `--force` was not given. */
export async function release(
  { consul, deps }: { consul: Consul; deps: Deps },
  options: ReleaseOptions,
  signal: AbortSignal,
): Promise<ReleaseResult> {
  const keys = groupKeys(options.prefix, options.group);
  const asked = { name: 'runlock release', ttlMs: SESSION_TTL_MS, signal, ...FIRST_CONTACT };
  const node = options.owner ?? (await agentNode({ consul, deps }, asked));
  const { group } = options;
  const target: Target = { consul, deps, keys, options: { ...options, owner: node }, signal };
  const mine = (await readAll(target)).filter(
    ({ slot, owner }) => owner?.claim.node === node && (options.slot === undefined || options.slot === slot),
  );
  if (mine.length === 0) return { kind: 'nothing', node, group };
  const claims: Released[] = [];
  for (const { slot } of mine) {
    const done = await releaseSlot(target, slot);
    if (done) claims.push(done);
  }
  return claims.length === 0 ? { kind: 'nothing', node, group } : { kind: 'released', node, group, claims };
}

async function readAll({ consul, keys, options: { slot = 0 }, signal }: Target): Promise<Slot[]> {
  // A listing hides what the token may not read; one key is refused.
  await consul.get(keys.owner(slot), { ...FIRST_CONTACT, signal, rule: keys.rule });
  const { entries } = await consul.list(keys.slotPrefix, { ...FIRST_CONTACT, signal, rule: keys.rule });
  return readSlots(keys.root, entries);
}

/** Undefined: the claim was gone already. */
async function releaseSlot(target: Target, slot: number): Promise<Released | undefined> {
  for (let tries = 0; tries < TRIES; tries++) {
    const now = (await readAll(target)).find((candidate) => candidate.slot === slot);
    if (now?.owner?.claim.node !== target.options.owner) return undefined;
    const { owner } = now;
    const done =
      now.lockedBy === undefined ? await clear(target, now, owner) : await evict(target, slot, owner);
    if (done) return done;
  }
  throw new RunlockError(
    'refused',
    `the claim of slot ${slot} keeps changing; look at 'runlock status ${target.options.group}' and try again`,
  );
}

/** Undefined: the claim changed meanwhile. */
async function clear(
  target: Target,
  { slot, strayLock }: Slot,
  { claim, index }: Owner,
): Promise<Released | undefined> {
  const { consul, keys, options, signal } = target;
  if (!options.force && (claim.state === 'running' || claim.state === 'evicted')) {
    throw new RunlockError(
      'refused',
      `${claim.node} was running ${claim.command} in slot ${slot} of ${options.group} and its session is gone: the command may still run there; look at ${claim.node}, then use 'runlock release ${options.group} --owner ${claim.node} --force'`,
    );
  }
  const result = await send(consul, clearClaim({ keys, slot, strayLock }, index), {
    signal,
    rule: keys.rule,
  });
  if (result.kind === 'refused') return undefined;
  const how = mayStillRun(claim) ? 'unwatched' : 'cleared';
  return { slot, node: claim.node, state: claim.state, how };
}

/** Whether the command may still run although its session is gone. */
function mayStillRun({ state }: Claim): boolean {
  switch (state) {
    case 'running':
    case 'evicted':
    case 'abandoned':
      return true;
    case 'failed':
    case 'rebooting':
    case 'held':
      return false;
    default:
      return assertNever(state);
  }
}

/** A run whose session lives can only be evicted: it kills its command and gives the slot back itself. */
async function evict(target: Target, slot: number, { claim, index }: Owner): Promise<Released | undefined> {
  const { consul, deps, keys, options, signal } = target;
  if (!options.force) {
    throw new RunlockError(
      'refused',
      `${claim.node} is running ${claim.command} in slot ${slot} of ${options.group} (run ${claim.run}); wait for it, or end it with 'runlock release ${options.group} --owner ${claim.node} --force'`,
    );
  }
  if (claim.state !== 'evicted') {
    const evicted: Claim = {
      ...claim,
      state: 'evicted',
      by: options.by,
      since: new Date(deps.clock.now()).toISOString(),
    };
    const result = await send(consul, changeClaim(keys, slot, evicted, index), { signal, rule: keys.rule });
    if (result.kind === 'refused') return undefined;
  }
  deps.log('info', `evicted the run of ${claim.node} from slot ${slot}; waiting until it is gone`, {
    event: 'evicted',
    slot,
  });
  const how = await untilGone(target, slot, claim);
  return { slot, node: claim.node, state: claim.state, how };
}

/**
 * Waits until the run has given the slot back.
 * @throws RunlockError `refused` when its session ends before: then nobody has said that its command is gone.
 */
async function untilGone(target: Target, slot: number, { run, node }: Claim): Promise<Released['how']> {
  const { consul, keys, options, signal } = target;
  let index: number | undefined;
  for (;;) {
    const seen = await consul.list(keys.slot(slot), { signal, index, rule: keys.rule });
    const now = readSlots(keys.root, seen.entries)[0];
    if (now?.owner?.claim.run !== run) return 'evicted';
    if (now.lockedBy === undefined) {
      const { state } = now.owner.claim;
      if (state === 'failed' || state === 'rebooting') return 'evicted';
      const again = `runlock release ${options.group} --owner ${node} --force`;
      throw new RunlockError(
        'refused',
        `the session of ${node}'s run ended before it gave slot ${slot} of ${options.group} back: the command may still run there; look at ${node}, then use '${again}' once more`,
      );
    }
    index = seen.index;
  }
}

/** What was done, for people. */
export function describeRelease(result: ReleaseResult): string {
  const { node, group } = result;
  switch (result.kind) {
    case 'nothing':
      return `nothing to release: ${node} has no claim in ${group}\n`;
    case 'released':
      return result.claims.map((claim) => `${describeClaim(claim, group)}\n`).join('');
    default:
      return assertNever(result);
  }
}

function describeClaim({ slot, node, state, how }: Released, group: string): string {
  switch (how) {
    case 'cleared':
      return `cleared the ${state} claim of ${node} on slot ${slot} of ${group}`;
    case 'unwatched':
      return `cleared the ${state} claim of ${node} on slot ${slot} of ${group}; its session was gone, so the command may still run on ${node}: look there before others change`;
    case 'evicted':
      return `evicted ${node} from slot ${slot} of ${group}; its command is gone`;
    default:
      return assertNever(how);
  }
}
