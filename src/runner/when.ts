/** The conditions of a run (`--when`), as a reason to wait without a slot. Loaded for runs with conditions only. */
import { judge } from '../conditions/judge.ts';
import type { Judged } from '../conditions/judge.ts';
import type { Condition } from '../conditions/parse.ts';
import { isLive } from '../conditions/is-live.ts';
import { insideOf, neverBeside, waitsForEnd } from '../conditions/own-run.ts';
import type { OwnRun, Seats } from '../conditions/own-run.ts';
import { look } from '../conditions/read.ts';
import type { Look } from '../conditions/read.ts';
import { sourcesOf } from '../conditions/sources.ts';
import { watchConditions } from '../conditions/watch.ts';
import { FIRST_CONTACT } from '../consul/consul.ts';
import { persistRefused } from '../consul/retry.ts';
import { agentNode } from '../consul/session.ts';
import { RunlockError } from '../errors.ts';
import type { Reason } from '../gate/until-open.ts';
import type { SeenKey } from '../lock/transactions.ts';
import { stateKey } from '../state/path.ts';
import { visible } from '../text/visible.ts';
import type { ExecDeps } from './options.ts';

/** The conditions of one wait, or of one look with slots. */
export interface ConditionReason extends Reason {
  /** Each condition that is not met, and its current value. */
  missing(): readonly string[];
  /** Another mark is another reason. */
  mark(): string;
  /** What the conditions on states rest on, as it was read last. A state that was not there is not among them. */
  states(): readonly SeenKey[];
}

export interface RunConditions {
  /** Begins anew: for one wait, or for one look. */
  all(): ConditionReason;
  /** Those on states alone; undefined: there are none. */
  onStates(): ConditionReason | undefined;
  /** Logs what is missing, once for each different reason. */
  tell(reason: ConditionReason): void;
  /** A state that has changed before the command could start, in the words of `missing`. */
  changed(key: string): string;
}

interface Asked {
  readonly prefix: string;
  readonly seats: Seats['groups'];
  /** Undefined: the one that the local agent is on. */
  readonly node: string | undefined;
  readonly run: string;
  readonly when: readonly Condition[];
  /** The run that this one is inside of, which keeps its slot meanwhile. */
  readonly inside: OwnRun | undefined;
}

type Effects = Pick<ExecDeps, 'consul' | 'clock' | 'random' | 'host' | 'emit'>;

export function runConditions(deps: Effects, asked: Asked): RunConditions {
  const { prefix, seats, run, when } = asked;
  const groups = seats.map(({ group }) => group);
  const onStates = when.filter(({ kind }) => kind === 'state');
  const said = new Set<string>();
  const around = { ...asked, groups, outer: outerRun(deps, asked), never: refuseNever(deps, asked) };
  let isApart = false;
  const apart = () => {
    if (!isApart) deps.emit({ event: 'when-apart', run, group: groups.join(',') });
    isApart = true;
  };
  return {
    all: () => createReason(deps, { ...around, apart }, when),
    onStates: () => (onStates.length === 0 ? undefined : createReason(deps, { ...around, apart }, onStates)),
    tell: (reason) => {
      const missing = reason.missing();
      if (missing.length === 0) return;
      // The texts contain growing ages, so compare conditions and marks to log each state only once.
      const key = reason.mark();
      if (!said.has(key)) deps.emit({ event: 'when-waits', run, group: groups.join(','), missing });
      said.add(key);
    },
    changed: (key) => {
      const one = onStates.find((each) => each.kind === 'state' && stateKey(prefix, each.path) === key);
      return `${visible(one?.text ?? key)}: the state has changed`;
    },
  };
}

type Outer = ReturnType<typeof outerRun>;

/** The run that this one is inside of, if it is still under way: a daemon that it left may be what waits. Warns once. */
function outerRun({ consul, clock, emit }: Effects, { prefix, inside }: Asked) {
  let asked: Promise<OwnRun | undefined> | undefined;
  const ask = async (signal: AbortSignal) => {
    if (!inside || !(await isLive({ consul, clock, prefix }, inside, signal))) return undefined;
    emit({ event: 'wait-in-run', ...insideOf(inside) });
    return inside;
  };
  return (signal: AbortSignal) => (asked ??= ask(signal));
}

/** Refuses, once, what can't hold while this run starts. @throws RunlockError `usage` */
function refuseNever(deps: Effects, { seats, when, ...asked }: Asked) {
  let found: Promise<void> | undefined;
  const find = async (signal: AbortSignal) => {
    // Most runs need not ask which node this is.
    const isAboutNode = when.some(({ kind, not }) => kind === 'active' && !not);
    const named = asked.node ?? (isAboutNode ? await nameNode(deps, signal) : '');
    for (const condition of when) {
      const why = neverBeside(condition, { node: named, groups: seats });
      if (why === undefined) continue;
      throw new RunlockError(
        'usage',
        `--when ${visible(condition.text)} never lets this run start: ${why}; nothing was started; take it away, or name another group or node`,
      );
    }
  };
  return (signal: AbortSignal) => (found ??= find(signal));
}

const nameNode = (deps: Effects, signal: AbortSignal) =>
  agentNode({ consul: deps.consul, deps }, { name: 'runlock', ttlMs: 30_000, signal, ...FIRST_CONTACT });

interface Around extends Asked {
  readonly groups: readonly string[];
  readonly outer: Outer;
  readonly never: (signal: AbortSignal) => Promise<void>;
  /** The conditions hold, but not all of them were seen at one moment. */
  readonly apart: () => void;
}

function createReason(
  { consul, clock }: Effects,
  asked: Around,
  when: readonly Condition[],
): ConditionReason {
  const place = { prefix: asked.prefix, groups: asked.groups };
  const sources = sourcesOf(when, place);
  let world: Look | undefined;
  let judged: readonly Judged[] = [];
  /** How often the watch has judged. */
  let heard = 0;
  let followed = false;
  const open = () => judged.filter(({ holds }) => !holds);
  return {
    stableMs: 0,
    isOpen: () => world !== undefined && open().length === 0,
    // The watch has its own timers.
    dueInMs: () => Infinity,
    missing: () => open().map(({ condition, is }) => `${visible(condition.text)}: ${is}`),
    mark: () => JSON.stringify(open().map(({ condition, mark }) => [condition.text, mark])),
    states: () => statesIn(world, when, asked.prefix),
    read: async (options) => {
      await asked.never(options.signal);
      const before = heard;
      const read = await persistRefused(clock, options.signal, () =>
        look(consul, { sources, proven: new Set() }, options),
      );
      const now = judge(when, read, { ...place, nowMs: clock.earliest() });
      refuseOwn(now, asked.run);
      const outer = await asked.outer(options.signal);
      if (outer) refuseOuter(now, { ...outer, isLive: true });
      world = read;
      // What the watch has judged meanwhile may be newer, and it would not say that again.
      if (heard === before) judged = now;
      if (!read.atOnce && now.every(({ holds }) => holds)) asked.apart();
    },
    follow: (bell, ended) => {
      if (followed) return;
      followed = true;
      watchConditions({ consul, clock, ...place, signal: ended }, when, {
        since: () => undefined,
        decide: (looked) => {
          heard += 1;
          ({ judged } = looked);
          bell.ring();
          return { againInMs: Infinity };
        },
      }).catch((error: unknown) => bell.fail(error));
    },
  };
}

/** A key that is not there can't be proved absent in a transaction without the right to write it (measured). */
function statesIn(world: Look | undefined, when: readonly Condition[], prefix: string): SeenKey[] {
  const states = when.flatMap((each) => (each.kind === 'state' ? stateKey(prefix, each.path) : []));
  // A state of --during also rests on the claim under which it stands.
  const keys = new Set([...states, ...(world?.claims ?? []).map(({ key }) => key)]);
  return (world?.entries ?? [])
    .filter(({ key }) => keys.has(key))
    .sort((a, b) => Number(states.includes(b.key)) - Number(states.includes(a.key)))
    .map(({ key, modifyIndex: index }) => ({ key, index }));
}

/**
 * Refuses a condition that is false because this run itself has its slot: no try could succeed. @throws RunlockError
 * `usage`
 */
function refuseOwn(judged: readonly Judged[], run: string): void {
  const own = judged.find(({ holds, runs }) => !holds && runs.includes(run));
  if (!own) return;
  throw new RunlockError(
    'usage',
    `--when ${visible(own.condition.text)} never holds while this run has its slot; nothing was started; take it away, or name another group or node`,
  );
}

/** The same of the run that this one is inside of. @throws RunlockError `usage` */
function refuseOuter(judged: readonly Judged[], outer: Parameters<typeof waitsForEnd>[0]): void {
  const first = judged.find(waitsForEnd(outer));
  if (!first) return;
  throw new RunlockError(
    'usage',
    `--when ${visible(first.condition.text)} waits for the end of the run that this command is inside of, which would never come (${first.is}); nothing was started; give --when to the 'runlock exec' that started that run`,
  );
}
