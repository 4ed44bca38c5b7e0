/**
 * The part that a trigger has in a run that it started: the command begins only if something still asks for it, and what it
 * had seen then is known from the transaction on that records a good end (docs/adr/0046). Loaded for such runs only.
 */
import type { Entry } from '../consul/consul.ts';
import { untilDone } from '../consul/retry.ts';
import type { Step } from '../consul/txn.ts';
import { lookForNews } from '../conditions/sights.ts';
import { RunlockError, assertNever } from '../errors.ts';
import { encodeCursor, readCursor } from '../jobs/cursor.ts';
import type { Cursor, ReadCursor } from '../jobs/cursor.ts';
import { triggerKey, triggerRule } from '../jobs/keys.ts';
import { failed, refused, started, succeeded } from '../jobs/trigger-cursor.ts';
import type { Begun } from '../jobs/trigger-cursor.ts';
import { admit, next, placeOf } from '../jobs/trigger.ts';
import type { HeldBack, TriggerChoice } from '../jobs/trigger.ts';
import { linkOf } from '../lock/causes.ts';
import type { Causes } from '../lock/causes.ts';
import type { Limits } from '../lock/release.ts';
import type { Outcome } from '../lock/records.ts';
import type { ExecDeps } from './options.ts';
import type { EndPart, Leaving, Part, StartPart } from './part.ts';
import type { HeldSlots } from './slots.ts';

export function triggerPart(deps: ExecDeps, prefix: string, trigger: TriggerChoice): Part {
  let begun: Begun | undefined;
  return {
    start: (slots) => {
      const way = wayOf(deps, slots, { prefix, trigger });
      return startOf(way, (now) => (begun = now));
    },
    end: (slots, ran) => {
      const way = wayOf(deps, slots, { prefix, trigger });
      return begun && endOf(way, begun, ran.outcome);
    },
  };
}

type Way = ReturnType<typeof wayOf>;

function wayOf(
  deps: ExecDeps,
  slots: HeldSlots,
  { prefix, trigger }: { readonly prefix: string; readonly trigger: TriggerChoice },
) {
  const { id: run, node } = slots[0].grant.context.run;
  const key = triggerKey(prefix, node, trigger.task);
  return { deps, prefix, trigger, run, node, key, rule: triggerRule(prefix, node) };
}

interface Stored {
  readonly read: ReadCursor;
  readonly index: number;
}

async function readStored({ deps: { consul }, key, rule }: Way, limits: Limits): Promise<Stored> {
  const { entry } = await consul.get(key, { ...limits, rule, retryForMs: 0 });
  return { read: readCursor(entry), index: indexOf(entry) };
}

const indexOf = (entry: Entry | undefined) => entry?.modifyIndex ?? 0;

const toStep = ({ key }: Way, cursor: Cursor, seenIndex: number): Step<'trigger'> => ({
  means: 'trigger',
  operation: { verb: 'cas', key, value: encodeCursor(cursor), index: seenIndex },
});

function startOf(way: Way, tell: (begun: Begun) => void): StartPart {
  const { deps, prefix, trigger, run, node, rule } = way;
  const { consul, clock } = deps;
  let sent: { readonly begun: Begun; readonly causes: Causes } | undefined;
  return {
    rule,
    steps: async ({ limits, isAgain }) => {
      const { read, index } = await readStored(way, limits);
      if (read.kind === 'newer') throw new RunlockError('incompatible', `${read.why}; nothing was started`);
      const nowMs = clock.now();
      const place = placeOf(read, trigger, nowMs);
      if (isAgain && sent && place.cursor.run === run) return { kind: 'begun' };
      if (place.cursor.run !== undefined) {
        // One task at a time runs here, so that run is over, and has not told how.
        const lost = failed(place.cursor, 'lost', nowMs);
        return leave(way, limits, { cursor: lost, seenIndex: index, why: 'the run before it was lost' });
      }
      const sights = await lookForNews({ consul, clock, prefix }, trigger.on, { ...limits, retryForMs: 0 });
      const now = next(sights, place, trigger, nowMs);
      switch (now.kind) {
        case 'quiet':
          return { kind: 'left', why: 'nothing asks for it any more' };
        case 'held':
          return { kind: 'left', why: HELD[now.by] };
        case 'start':
          break;
        default:
          return assertNever(now);
      }
      const admission = admit(now.asking, linkOf(trigger.task, node));
      const begun: Begun = { run, sights, place };
      if (admission.kind === 'refused') {
        const { why, causes } = admission;
        const cursor = refused(begun, { why, ...causes }, nowMs);
        return leave(way, limits, {
          cursor,
          seenIndex: index,
          why: `its own runs have led to the change: ${causes.cause.join(', ')}`,
        });
      }
      sent = { begun, causes: admission.causes };
      tell(begun);
      return { kind: 'steps', steps: [toStep(way, started(begun, trigger, nowMs), index)] };
    },
    // The agent has seen a condition turn meanwhile, or an operator has reset the trigger.
    refused: () => Promise.resolve({ kind: 'again' }),
    causes: () => sent?.causes,
    undo: (fault) => takeBack(way, sent?.begun, fault),
  };
}

const HELD: Readonly<Record<HeldBack, string>> = {
  'back-off': 'its last runs failed, and the next may not start yet',
  'min-interval': 'its last start was too short ago',
  tripped: 'it was started too often',
};

/** Writes the cursor by itself. Refused: the agent has written meanwhile, and looks again. */
async function leave(
  way: Way,
  limits: Limits,
  { cursor, seenIndex, why }: { readonly cursor: Cursor; readonly seenIndex: number; readonly why: string },
): Promise<Leaving> {
  await way.deps.consul.transact([toStep(way, cursor, seenIndex).operation], { ...limits, rule: way.rule });
  return { kind: 'left', why };
}

const ALONE_MS = 10_000;
const REQUEST_MS = 5_000;
const PAUSE_MS = 300;

/** Changes the cursor while it names this run. Never throws. */
async function alone(way: Way, change: (cursor: Cursor) => Cursor): Promise<void> {
  const limits = { signal: AbortSignal.timeout(ALONE_MS), timeoutMs: REQUEST_MS, rule: way.rule };
  const once = async (): Promise<true | undefined> => {
    const { read, index } = await readStored(way, limits);
    if (read.kind !== 'cursor' || read.cursor.run !== way.run) return true;
    const answer = await way.deps.consul.transact(
      [toStep(way, change(read.cursor), index).operation],
      limits,
    );
    return answer.kind === 'done' ? true : undefined;
  };
  await untilDone(way.deps.clock, { signal: limits.signal, pauseMs: () => PAUSE_MS }, once).catch(() => {
    // The agent, or the next run, finds a run that has not told how it ended.
  });
}

const takeBack = (way: Way, begun: Begun | undefined, fault: unknown): Promise<void> =>
  alone(way, (cursor) =>
    fault === undefined && begun ? begun.place.cursor : failed(cursor, 'failed', way.deps.clock.now()),
  );

function endOf(way: Way, begun: Begun, outcome: Outcome): EndPart {
  const { clock } = way.deps;
  const after = (now: Cursor | undefined, how: Outcome) =>
    how === 'succeeded'
      ? succeeded(begun, now, clock.now())
      : failed(now ?? begun.place.cursor, how, clock.now());
  return {
    rule: way.rule,
    steps: async (limits) => {
      const { read, index } = await readStored(way, limits);
      if (read.kind === 'newer') return [];
      return [toStep(way, after(read.kind === 'cursor' ? read.cursor : undefined, outcome), index)];
    },
    isWritten: async (limits) => {
      const { read } = await readStored(way, limits);
      return read.kind === 'cursor' && read.cursor.run !== way.run;
    },
    unwritten: 'its trigger asks for another run',
    rest: async (ran, isWritten) => {
      // What could not be recorded as good has not been seen.
      if (!isWritten) await alone(way, (cursor) => failed(cursor, ran.outcome, clock.now()));
    },
  };
}
