/** What a run with `--publish` or `--during` has to be allowed, and how it ends. Loaded for such runs only. */
import type { Consul } from '../consul/consul.ts';
import type { GivenBack } from '../events/events.ts';
import { overText } from '../events/end.ts';
import { finishAll } from '../lock/finish.ts';
import type { Finishing } from '../lock/finish.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import { stateKey, stateRule } from '../state/path.ts';
import { publishingOf } from '../state/publishing.ts';
import { hint } from '../text/suggested-command.ts';
import type { ExecDeps, ExecOptions } from './options.ts';
import type { HeldSlot, HeldSlots } from './slots.ts';
import { endingOf } from './ran.ts';
import type { Ran } from './ran.ts';

/**
 * Tries whether the token may write the states, in a way that changes nothing, before anything is asked for: a run that
 * can't publish would change its node first, and fail then.
 * @throws RunlockError `forbidden`, naming the rule.
 */
export async function checkRights(
  consul: Consul,
  { prefix, publish = [], during = [] }: Pick<ExecOptions, 'prefix' | 'publish' | 'during'>,
  signal: AbortSignal,
): Promise<void> {
  const byRule = new Map<string, string[]>();
  for (const { path } of [...publish, ...during]) {
    const rule = stateRule(prefix, path, 'write');
    byRule.set(rule, [...(byRule.get(rule) ?? []), path]);
  }
  const tryRule = async ([rule, paths]: readonly [string, readonly string[]]) => {
    // Consul asks for the right to write of every check; a state that is set refuses, and has been asked for as well.
    const checks = paths.map((path) => ({ verb: 'check-not-exists', key: stateKey(prefix, path) }) as const);
    try {
      await consul.transact(checks, { signal });
    } catch (error) {
      if (!isRunlockError(error, 'forbidden')) return;
      const message = `Consul at ${consul.address} does not let this token set ${paths.join(', ')}; nothing was started; the token needs the rule: ${rule}`;
      throw new RunlockError('forbidden', message, { cause: error });
    }
  };
  await Promise.all([...byRule].map(tryRule));
  signal.throwIfAborted();
}

interface Given {
  /** As it is recorded: not good if it could not be recorded as good everywhere. */
  readonly run: Ran;
  /** What became of the slots; undefined: they are still held. */
  readonly given?: ReadonlyMap<HeldSlot, GivenBack>;
}

/** Ends a good run in all of its groups at once, with its states. Any other run publishes nothing. Never throws. */
export async function publishRun(
  deps: ExecDeps,
  slots: HeldSlots,
  { ran, options }: { readonly ran: Ran; readonly options: ExecOptions },
): Promise<Given> {
  if (ran.outcome !== 'succeeded') return { run: ran };
  const { prefix, publish = [], during = [], sessionTtlMs } = options;
  const [
    {
      grant: { context },
    },
  ] = slots;
  const { id: run, node } = context.run;
  const writer = {
    node,
    run,
    at: new Date(deps.clock.now()).toISOString(),
    newId: deps.newId,
    causes: ran.causes,
  };
  const paths = during.map(({ path }) => path);
  const publishing = publishingOf({
    consul: deps.consul,
    clock: deps.clock,
    prefix,
    publish,
    during: paths,
    writer,
  });
  const toFinish = async (slot: HeldSlot): Promise<Finishing> => ({
    ...{ holding: await slot.lease.rest(), ending: endingOf(slot, ran, ran.outcome) },
  });
  const [first, ...others] = slots;
  const finishing = [await toFinish(first), ...(await Promise.all(others.map(toFinish)))] as const;
  const finished = await finishAll([...finishing], publishing, sessionTtlMs);
  const all = (toGiven: (slot: HeldSlot) => GivenBack) => new Map(slots.map((slot) => [slot, toGiven(slot)]));
  switch (finished.kind) {
    case 'finished':
      await Promise.all(slots.map(({ lease }) => lease.stop()));
      return { run: ran, given: all(() => ({ kind: 'released' })) };
    case 'unknown': {
      await Promise.all(slots.map(({ lease }) => lease.stop()));
      const { why } = finished;
      const given = all(
        ({
          grant: {
            context: { keys },
            slot,
          },
        }) => ({ kind: 'stays', keys: [keys.owner(slot)], why }),
      );
      const [asked] = publish;
      if (!asked) return { run: ran, given };
      const check = hint(prefix, 'state', 'get', asked.path);
      const unpublished = `whether its states were published is unknown: check with '${check}'`;
      return { run: notGood(ran, { unpublished, why, group: context.keys.group }), given };
    }
    case 'lost': {
      finished.holdings.forEach((holding, i) => slots[i]?.lease.know(holding));
      const { over, group } = finished;
      const unpublished = `${overText(over, group)} before its success could be recorded; nothing was published`;
      return {
        run: {
          ...ran,
          outcome: over.kind === 'evicted' ? 'evicted' : 'lost',
          cause: { ...over, group },
          unpublished,
        },
      };
    }
    case 'refused': {
      finished.holdings.forEach((holding, i) => slots[i]?.lease.know(holding));
      const unpublished = `its success could not be recorded (${finished.why}); nothing was published`;
      return { run: notGood(ran, { unpublished, why: finished.why, group: context.keys.group }) };
    }
  }
}

/** Exit code 79: the caller must not take for published what is not. */
const notGood = (
  ran: Ran,
  { unpublished, why, group }: { readonly unpublished: string; readonly why: string; readonly group: string },
): Ran => ({ ...ran, outcome: 'lost', cause: { kind: 'lost', why, group }, unpublished });
