/**
 * The part that states have in a run: those of `--when` are as they were seen when the command starts, those of
 * `--during` stand from then until the claim ends, those of `--publish` come with the record of a good run
 * (docs/protocol.md, "States"). Loaded for such runs only.
 */
import type { Consul, Entry } from '../consul/consul.ts';
import { untilDone } from '../consul/retry.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import type { Limits } from '../lock/release.ts';
import type { Causes } from '../lock/causes.ts';
import { rootOf } from '../lock/records.ts';
import { setStates, stillHold } from '../lock/transactions.ts';
import type { SeenKey } from '../lock/transactions.ts';
import { encodeState } from '../state/document.ts';
import { duringDocument } from '../state/of-run.ts';
import type { Writer } from '../state/of-run.ts';
import { stateKey, stateRule } from '../state/path.ts';
import { publishingOf } from '../state/publishing.ts';
import { hint } from '../text/suggested-command.ts';
import type { ExecDeps, ExecOptions } from './options.ts';
import type { EndPart, Part, StartPart } from './part.ts';
import type { Ran } from './ran.ts';
import type { HeldSlots } from './slots.ts';

type Asked = Pick<ExecOptions, 'prefix' | 'when' | 'publish' | 'during'>;

export function statesPart(deps: ExecDeps, asked: Asked): Part {
  const { when = [], publish, during } = asked;
  const proves = during !== undefined || when.some(({ kind }) => kind === 'state');
  const sets = publish ?? during;
  return {
    check: async (signal) => {
      await checkRights(deps.consul, asked, signal);
      return undefined;
    },
    start: proves ? (slots, conditions) => startOf(deps, slots, { ...asked, conditions }) : undefined,
    // Any other run publishes nothing.
    end: (slots, ran) =>
      sets && ran.outcome === 'succeeded' ? endOf(deps, slots, { ...asked, ran }) : undefined,
  };
}

/**
 * Tries whether the token may write the states, in a way that changes nothing, before anything is asked for: a run that
 * can't publish would change its node first, and fail then.
 * @throws RunlockError `forbidden`, naming the rule.
 */
async function checkRights(
  consul: Consul,
  { prefix, publish = [], during = [] }: Asked,
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
      await consul.transact(checks, { signal, rule });
    } catch (error) {
      if (!isRunlockError(error, 'forbidden')) return;
      const message = `can't set ${paths.join(', ')}, so nothing was started: ${error.message}`;
      throw new RunlockError('forbidden', message, { cause: error });
    }
  };
  await Promise.all([...byRule].map(tryRule));
  signal.throwIfAborted();
}

const writerOf = ({ clock, newId }: ExecDeps, [first]: HeldSlots, causes: Causes | undefined): Writer => {
  const { id: run, node } = first.grant.context.run;
  return { node, run, at: new Date(clock.now()).toISOString(), newId, causes };
};

function startOf(
  deps: ExecDeps,
  slots: HeldSlots,
  { prefix, during = [], conditions }: Asked & { readonly conditions: readonly SeenKey[] },
): StartPart {
  // Made once, by the first try: each writes the same change.
  let states: readonly Wanted[] = [];
  const rule = [...new Set(during.map(({ path }) => stateRule(prefix, path, 'write')))].join(', ');
  let seen = conditions;
  let before: readonly Entry[] | undefined;
  return {
    rule,
    steps: async ({ limits, causes = deps.causes }, room) => {
      if (before === undefined) states = toStates(deps, slots, { prefix, during, causes });
      // Undone is what was there before the first try: a later one may read what the first has written.
      before ??= await readStates(deps, states, limits);
      // Claims of states of --during come last; the last look has judged those that find no room.
      seen = seen.slice(0, Math.max(0, room - states.length));
      return { kind: 'steps', steps: [...stillHold(seen), ...setStates(states)] };
    },
    refused: async (key, { limits, isAgain }) => {
      const own = isAgain ? states.find((state) => state.key === key) : undefined;
      if (!own || !(await isOurs(deps, own, limits))) return { kind: 'changed', key };
      // An earlier try took effect, and has itself changed what this condition was about.
      seen = seen.filter((one) => one.key !== own.key);
      return { kind: 'again' };
    },
    undo: () => restore(deps, states, { before: before ?? [], rule }),
  };
}

interface Wanted {
  readonly path: string;
  readonly key: string;
  readonly value: string;
}

function toStates(
  deps: ExecDeps,
  slots: HeldSlots,
  { prefix, during = [], causes }: Asked & { readonly causes: Causes | undefined },
): Wanted[] {
  const { context, slot, owner } = slots[0].lease.holding();
  const claim = { group: context.keys.group, slot, root: rootOf(owner.claim) };
  const writer = writerOf(deps, slots, causes);
  return during.map((setting) => {
    const value = encodeState(duringDocument(setting, claim, writer));
    return { path: setting.path, key: stateKey(prefix, setting.path), value };
  });
}

async function readStates(
  { consul }: ExecDeps,
  states: readonly Wanted[],
  limits: Limits,
): Promise<readonly Entry[]> {
  if (states.length === 0) return [];
  const reads = states.map(({ key }) => ({ verb: 'get-tree' as const, key }));
  return consul.readAll(reads, { ...limits, retryForMs: 0 });
}

async function isOurs({ consul }: ExecDeps, { key, value }: Wanted, limits: Limits): Promise<boolean> {
  const { entry } = await consul.get(key, { ...limits, retryForMs: 0 });
  return entry?.value === value;
}

const UNDO_MS = 5_000;
const UNDO_PAUSE_MS = 100;

/**
 * Takes back what `start` wrote, for a command that never began. It matters where this node's earlier claim was
 * restored: the states would stand as long as that claim does.
 */
async function restore(
  { consul, clock }: ExecDeps,
  states: readonly Wanted[],
  { before, rule }: { readonly before: readonly Entry[]; readonly rule: string },
): Promise<void> {
  const limits = { signal: AbortSignal.timeout(UNDO_MS), timeoutMs: UNDO_MS, rule };
  const restoreOne = async ({ key, value }: Wanted): Promise<true | undefined> => {
    const { entry } = await consul.get(key, { ...limits, retryForMs: 0 });
    if (entry?.value !== value) return true;
    const index = entry.modifyIndex;
    const was = before.find((one) => one.key === key);
    const operation = was
      ? ({ verb: 'cas', key, value: was.value, index } as const)
      : ({ verb: 'delete-cas', key, index } as const);
    const answer = await consul.transact([{ verb: 'check-index', key, index }, operation], limits);
    return answer.kind === 'done' ? true : undefined;
  };
  const tries = { signal: limits.signal, pauseMs: () => UNDO_PAUSE_MS };
  await Promise.all(
    states.map((state) =>
      untilDone(clock, tries, () => restoreOne(state)).catch(() => {
        // Consul does not answer; without a claim of this node the states count as absent all the same.
      }),
    ),
  );
}

function endOf(
  deps: ExecDeps,
  slots: HeldSlots,
  { prefix, publish = [], during = [], ran }: Asked & { readonly ran: Ran },
): EndPart {
  const { consul, clock } = deps;
  const paths = during.map(({ path }) => path);
  const writer = writerOf(deps, slots, ran.causes);
  const [asked] = publish;
  return {
    ...publishingOf({ consul, clock, prefix, publish, during: paths, writer }),
    unwritten: 'nothing was published',
    ...(asked && {
      unknown: `whether its states were published is unknown: check with '${hint(prefix, 'state', 'get', asked.path)}'`,
    }),
  };
}
