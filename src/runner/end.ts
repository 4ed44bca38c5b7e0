/** The end of a run with parts that write something then: all of it in one transaction, or nothing. Loaded for such runs only. */
import type { GivenBack } from '../events/events.ts';
import { overText } from '../events/end.ts';
import { finishAll } from '../lock/finish.ts';
import type { Finishing } from '../lock/finish.ts';
import type { EndPart } from './part.ts';
import { endingOf } from './ran.ts';
import type { Ran } from './ran.ts';
import type { HeldSlot, HeldSlots } from './slots.ts';

export interface Together {
  /** As it is recorded: not good if it could not be recorded as good everywhere. */
  readonly run: Ran;
  /** What the parts had to write went with the release. */
  readonly isWritten: boolean;
  /** What became of the slots; undefined: they are still held. */
  readonly given?: ReadonlyMap<HeldSlot, GivenBack>;
}

/** Ends a run in all of its groups at once, with what its parts write. Never throws. */
export async function endTogether(
  slots: HeldSlots,
  { ran, parts, ttlMs }: { readonly ran: Ran; readonly parts: readonly EndPart[]; readonly ttlMs: number },
): Promise<Together> {
  const toFinish = async (slot: HeldSlot): Promise<Finishing> => ({
    holding: await slot.lease.rest(),
    ending: endingOf(slot, ran, ran.outcome),
  });
  const [first, ...others] = slots;
  const finishing = [await toFinish(first), ...(await Promise.all(others.map(toFinish)))] as const;
  const finished = await finishAll([...finishing], { closings: parts, ttlMs });
  const all = async (toGiven: (slot: HeldSlot, i: number) => GivenBack) => {
    await Promise.all(slots.map(({ lease }) => lease.stop()));
    return new Map(slots.map((slot, i) => [slot, toGiven(slot, i)]));
  };
  const { group } = first.grant.context.keys;
  switch (finished.kind) {
    case 'finished': {
      const toReleased = (_: HeldSlot, i: number): GivenBack => {
        const kept = finished.kept[i];
        return { kind: 'released', ...(kept && { kept }) };
      };
      return { run: ran, isWritten: true, given: await all(toReleased) };
    }
    case 'unknown': {
      const { why } = finished;
      const given = await all(({ grant: { context, slot } }) => ({
        kind: 'stays',
        keys: [context.keys.owner(slot)],
        why,
      }));
      const unknown = parts.flatMap((part) => part.unknown ?? []);
      if (unknown.length === 0) return { run: ran, isWritten: false, given };
      const unpublished = unknown.join('; ');
      return { run: notGood(ran, { unpublished, why, group }), isWritten: false, given };
    }
    case 'lost': {
      finished.holdings.forEach((holding, i) => slots[i]?.lease.know(holding));
      const { over } = finished;
      if (ran.outcome !== 'succeeded') return { run: ran, isWritten: false };
      const unpublished = `${overText(over, finished.group)} before its success could be recorded${unwritten(parts)}`;
      const outcome = over.kind === 'evicted' ? 'evicted' : 'lost';
      const cause = { ...over, group: finished.group };
      return { run: { ...ran, outcome, cause, unpublished }, isWritten: false };
    }
    case 'refused': {
      finished.holdings.forEach((holding, i) => slots[i]?.lease.know(holding));
      const { why } = finished;
      const unpublished = `its success could not be recorded (${why})${unwritten(parts)}`;
      return { run: notGood(ran, { unpublished, why, group }), isWritten: false };
    }
  }
}

const unwritten = (parts: readonly EndPart[]): string =>
  parts.map((part) => (part.unwritten === undefined ? '' : `; ${part.unwritten}`)).join('');

/** Exit code 79: the caller must not take for published what is not. Any other run stays what it is. */
function notGood(
  ran: Ran,
  { unpublished, why, group }: { readonly unpublished: string; readonly why: string; readonly group: string },
): Ran {
  if (ran.outcome !== 'succeeded') return ran;
  return { ...ran, outcome: 'lost', cause: { kind: 'lost', why, group }, unpublished };
}
