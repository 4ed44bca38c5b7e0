/**
 * A run asked for a reboot, and its host has booted: its slots are released, what it publishes is set, and its target is
 * good, in one transaction.
 */
import { contend } from '../jobs/contend.ts';
import type { Plan } from '../jobs/contend.ts';
import type { OfTarget } from '../jobs/end.ts';
import { jobWriteRule, lookAt } from '../jobs/read.ts';
import { final } from '../jobs/transactions.ts';
import { causesOf } from '../lock/causes.ts';
import { readSlots } from '../lock/decide.ts';
import { groupKeys } from '../lock/keys.ts';
import { decodeRun } from '../lock/records.ts';
import type { RunRecord } from '../lock/records.ts';
import { endHeld } from '../lock/transactions.ts';
import type { RunStep } from '../lock/transactions.ts';
import { publishingOf } from '../state/publishing.ts';
import { stateRule } from '../state/path.ts';
import type { Setting } from '../state/setting.ts';

/** Of the task, and of its run. */
export interface Rebooted {
  /** In which the run has a claim; that of the job last. */
  readonly groups: readonly string[];
  readonly publish: readonly Setting[];
  /** Paths. */
  readonly during: readonly string[];
  readonly newId: () => string;
}

export type AfterReboot =
  | 'good'
  /** The target is not rebooting any more; nothing was changed. */
  | 'changed'
  /** What only a run that is recorded as good in all its groups may publish, this one can't: a claim is gone. */
  | 'unpublished';

const REQUEST_MS = 5_000;

/**
 * A claim that somebody has cleared, or taken back, meanwhile is nobody's affair here, unless the task publishes.
 * @throws RunlockError as `lookAt`, and when the rights to write are missing.
 */
export function endAfterReboot(of: OfTarget, task: Rebooted): Promise<AfterReboot> {
  const { consul, deps, prefix, node, signal } = of;
  const { groups, publish, during, newId } = task;
  const [home = ''] = (groups[0] ?? '').split('/.');
  const rules = [
    jobWriteRule(prefix, home, of.ref.principal),
    ...groups.map((group) => groupKeys(prefix, group).rule),
    ...[...publish.map(({ path }) => path), ...during].map((path) => stateRule(prefix, path, 'write')),
  ];
  let states: ReturnType<typeof publishingOf> | undefined;
  let isFirst = true;
  return contend<AfterReboot>({ ...of, rule: rules.join(', ') }, async (): Promise<Plan<AfterReboot>> => {
    const look = await lookAt(of, of, { signal });
    if (look.kind !== 'target') return { kind: 'over', value: 'changed' };
    const { target } = look;
    const { state, run, exitCode } = target.document?.value ?? {};
    if (state !== 'rebooting' || run === undefined)
      return { kind: 'over', value: state === 'good' ? 'good' : 'changed' };
    const nowMs = deps.clock.now();
    const endedAt = new Date(nowMs).toISOString();
    const held = await claimsOf(of, groups, { run, endedAt });
    const isWhole = held.length === groups.length;
    if (publish.length > 0 && !isWhole) return { kind: 'over', value: 'unpublished' };
    const [first] = held;
    if (first && isWhole && publish.length + during.length > 0) {
      const writer = { node, run, at: endedAt, newId, causes: causesOf(first.record) };
      // Made once: whatever is sent again is the same change.
      states ??= publishingOf({ consul, clock: deps.clock, prefix, publish, during, writer });
    }
    const limits = { signal, timeoutMs: REQUEST_MS, rule: states?.rule ?? '' };
    const sets = (await states?.steps(limits, isFirst)) ?? [];
    isFirst = false;
    const end = { state: 'good', endedAt, ...(exitCode !== undefined && { exitCode }) } as const;
    return {
      kind: 'send',
      value: 'good',
      others: 1,
      steps: [
        ...held.flatMap(({ steps }) => steps),
        ...(sets as RunStep[]),
        ...final(target, { end, nowMs, isNode: true }),
      ],
    };
  });
}

interface Held {
  readonly record: RunRecord;
  readonly steps: readonly RunStep[];
}

/** The groups in which the run's claim stands as it left it, each with what records it as good there and releases its slot. */
async function claimsOf(
  { consul, prefix, node, signal }: OfTarget,
  groups: readonly string[],
  { run, endedAt }: { readonly run: string; readonly endedAt: string },
): Promise<Held[]> {
  const held: Held[] = [];
  for (const group of groups) {
    const keys = groupKeys(prefix, group);
    const { entries } = await consul.list(keys.slotPrefix, { signal, rule: keys.rule });
    const slot = readSlots(keys.base, entries).find(({ owner }) => owner?.claim.run === run);
    const { entry } = await consul.get(keys.run(node), { signal, rule: keys.rule });
    const record = entry && decodeRun(entry);
    if (slot?.owner?.claim.state !== 'rebooting' || slot.lockedBy !== undefined || record?.run !== run)
      continue;
    const ended = { ...record, outcome: 'succeeded', endedAt } as const;
    const { strayLock, owner } = slot;
    held.push({ record, steps: endHeld({ keys, slot: slot.slot, strayLock }, ended, owner.index) });
  }
  return held;
}
