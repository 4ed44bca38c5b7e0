/** A run asked for a reboot, and its host has booted: its slots are released and its target is good, in one transaction. */
import { contend } from '../jobs/contend.ts';
import type { Plan } from '../jobs/contend.ts';
import type { OfTarget } from '../jobs/end.ts';
import { jobRule, lookAt } from '../jobs/read.ts';
import { final } from '../jobs/transactions.ts';
import { readSlots } from '../lock/decide.ts';
import { groupKeys } from '../lock/keys.ts';
import { decodeRun } from '../lock/records.ts';
import { endHeld } from '../lock/transactions.ts';
import type { RunStep } from '../lock/transactions.ts';

/**
 * Changes nothing if the target is not rebooting any more. A claim that somebody has cleared, or taken back, meanwhile is nobody's
 * affair here.
 * @param groups those of the task.
 * @throws RunlockError as `lookAt`, and when the rights to write are missing.
 */
export function endAfterReboot(of: OfTarget, groups: readonly string[]): Promise<boolean> {
  const { consul, deps, prefix, node, signal } = of;
  const home = groups[0] ?? '';
  const rule = [jobRule(prefix, home, 'write'), ...groups.map((group) => groupKeys(prefix, group).rule)].join(
    ', ',
  );
  return contend<boolean>({ ...of, rule }, async (): Promise<Plan<boolean>> => {
    const look = await lookAt(of, of, { signal });
    if (look.kind !== 'target') return { kind: 'over', value: false };
    const { target } = look;
    const { state, run, exitCode } = target.document?.value ?? {};
    if (state !== 'rebooting' || run === undefined) return { kind: 'over', value: state === 'good' };
    const nowMs = deps.clock.now();
    const endedAt = new Date(nowMs).toISOString();
    const releases: RunStep[] = [];
    for (const group of groups) {
      const keys = groupKeys(prefix, group);
      const { entries } = await consul.list(keys.slotPrefix, { signal, rule });
      const slot = readSlots(prefix, entries).find(({ owner }) => owner?.claim.run === run);
      const { entry } = await consul.get(keys.run(node), { signal, rule });
      const record = entry && decodeRun(entry);
      if (slot?.owner?.claim.state !== 'rebooting' || slot.lockedBy !== undefined || record?.run !== run)
        continue;
      const ended = { ...record, outcome: 'succeeded', endedAt } as const;
      releases.push(
        ...endHeld({ keys, slot: slot.slot, strayLock: slot.strayLock }, ended, slot.owner.index),
      );
    }
    const end = { state: 'good', endedAt, ...(exitCode !== undefined && { exitCode }) } as const;
    return {
      kind: 'send',
      value: true,
      others: 1,
      steps: [...releases, ...final(target, { end, nowMs, isNode: true })],
    };
  });
}
