/** The second half: what this node holds by `acquire` ends, and is recorded. */
import type { Consul } from '../consul/consul.ts';
import type { Deps } from '../platform/deps.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import { hint } from '../text/suggested-command.ts';
import { keptClaim } from './release.ts';
import { RETRY_MS, limits } from './hold.ts';
import type { Limits } from './hold.ts';
import type { GroupKeys } from './keys.ts';
import { lastWord, untilRefused } from '../consul/retry.ts';
import { decodeRun, lastGoodOf } from './records.ts';
import type { Claim, RunRecord } from './records.ts';
import { readRecord, recordEnd } from './run-record.ts';
import { readSlots } from './slot.ts';
import type { Owner, Slot } from './slot.ts';
import { endHeld } from './transactions.ts';
import { send } from '../consul/txn.ts';

export interface HeldSlot {
  readonly consul: Consul;
  readonly deps: Deps;
  readonly keys: GroupKeys;
  readonly node: string;
  readonly slot: number;
}

/** How what was done between the halves ended. */
export interface HeldEnding {
  readonly outcome: 'succeeded' | 'failed';
  readonly exitCode?: number;
}

export interface EndedHeld {
  readonly claim: Claim;
  /** The claim that goes on keeping others out. */
  readonly kept?: Claim;
  readonly heldMs: number;
}

/**
 * The second half: ends what this node holds, and records it. Tried again until its deadline. Undefined: nothing is
 * held in the slot.
 * @throws RunlockError when Consul can't be reached, or refuses: the claim stays held.
 */
export async function giveHeldBack(held: HeldSlot, ending: HeldEnding): Promise<EndedHeld | undefined> {
  const asked = limits(held.keys);
  const isWorth = untilRefused(held.deps.clock);
  let sent: { readonly record: RunRecord; readonly ended: EndedHeld } | undefined;
  try {
    for (;;) {
      try {
        const slot = await readSlot(held, asked);
        const owner = slot.owner;
        if (owner?.claim.node !== held.node || owner.claim.state !== 'held') {
          if (sent && (await isRecorded(held, sent.record.run, asked))) return sent.ended;
          // Cleared, or taken over, between a look and the end: that it ended is known all the same.
          if (sent) await recordEnd(held, sent.record, asked.signal);
          return undefined;
        }
        const known = ending.outcome === 'failed' ? await lastGood(held, asked) : {};
        const { record, ended } = toEnd(held, owner, { ...ending, ...known });
        sent = { record, ended };
        const seen = { ...held, strayLock: slot.strayLock };
        const result = await send(held.consul, endHeld(seen, record, owner.index, ended.kept), asked);
        if (result.kind === 'done') return ended;
      } catch (error) {
        if (asked.signal.aborted || !isWorth(error)) throw error;
      }
      await held.deps.clock.sleep(RETRY_MS, { signal: asked.signal });
    }
  } catch (error) {
    const { consul, keys, node, slot } = held;
    // What can't be read stops the same command once more; why it can't says what to do.
    const again = isRunlockError(error, 'incompatible')
      ? ''
      : `: ${node} goes on holding it; run '${hint(keys.root, 'release', keys.group)}' again`;
    throw new RunlockError(
      isRunlockError(error) ? error.code : 'unreachable',
      `slot ${slot} of ${keys.group} could not be given back (${lastWord(consul, error)})${again}`,
      { cause: error },
    );
  }
}

async function readSlot({ consul, keys, slot }: HeldSlot, asked: Limits): Promise<Slot> {
  const { entries } = await consul.list(keys.slot(slot), asked);
  return readSlots(keys.root, entries)[0] ?? { slot };
}

/** What is known of the node's last good run; what can't be read is no reason to leave it held. */
async function lastGood(
  { consul, keys, node }: HeldSlot,
  asked: Limits,
): Promise<Pick<RunRecord, 'lastGoodAt'>> {
  const { entry } = await consul.get(keys.run(node), asked);
  try {
    const lastGoodAt = entry && lastGoodOf(decodeRun(entry));
    return lastGoodAt === undefined ? {} : { lastGoodAt };
  } catch {
    return {};
  }
}

/** Whether the second half took effect after all: it wrote the record in the same transaction. */
async function isRecorded({ consul, keys, node }: HeldSlot, run: string, asked: Limits): Promise<boolean> {
  const { entry } = await consul.get(keys.run(node), asked);
  return entry !== undefined && readRecord(entry)?.run === run;
}

function toEnd(
  { deps, node, slot }: HeldSlot,
  { claim: { waitedMs = 0, ...claim }, index: claimIndex }: Owner,
  { outcome, exitCode, lastGoodAt }: HeldEnding & Pick<RunRecord, 'lastGoodAt'>,
): { record: RunRecord; ended: EndedHeld } {
  const nowMs = deps.clock.now();
  const { run, command } = claim;
  const heldMs = Math.max(0, nowMs - Date.parse(claim.since));
  const code = exitCode === undefined ? {} : { exitCode };
  const figures = { endedAt: new Date(nowMs).toISOString(), waitedMs, ranMs: heldMs, claimIndex };
  const good = lastGoodAt === undefined ? {} : { lastGoodAt };
  const record: RunRecord = { node, run, outcome, ...code, command, slot, ...figures, ...good };
  const kept = keptClaim(claim, record, deps.clock.latest());
  return { record, ended: { claim, heldMs, ...(kept && { kept }) } };
}
