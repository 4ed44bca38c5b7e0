/** One step that the world may take, and the small changes that steps are made of. */
import type { Claim } from '../../src/lock/records.ts';
import { judgeToken } from './promises.ts';
import { get } from './store.ts';
import { withNewSession, withoutSession } from './transmit.ts';
import type { Sent } from './transmit.ts';
import { idle, replaceProcess, stateKeys, withProcess } from './world.ts';
import type { At, Faults, Lease, Process, Sighted, State, Tx, World } from './world.ts';

export interface Next {
  readonly label: string;
  readonly state: State;
  /** The promise that this step breaks. */
  readonly broken?: string;
}

/** A process that is about to take a step. */
export interface Actor {
  readonly world: World;
  readonly state: State;
  readonly i: number;
  readonly process: Process;
}

export const actorOf = (world: World, state: State, i: number): Actor => {
  const process = state.processes[i];
  if (!process) throw new Error(`no process ${i}`);
  return { world, state, i, process };
};

export const nameOf = ({ node, run }: Process): string => (run === undefined ? node : `${node} (${run})`);

export const spend = (state: State, fault: keyof Faults): State => ({
  ...state,
  faults: { ...state.faults, [fault]: state.faults[fault] - 1 },
});

export const step = ({ process }: Actor, what: string, state: State): Next => ({
  label: `${nameOf(process)} ${what}`,
  state,
});

/** The same process goes on somewhere else. */
export const goTo = (actor: Actor, at: At, changes: Partial<Process> = {}): State =>
  withProcess(actor.state, actor.i, { ...changes, at });

export const leave = (then: 'look' | 'idle'): At => ({ pc: 'leave', then });

/** Sends a transaction; it arrives in a step of its own. `from` is where a lost answer leads back to. */
export const sendFrom = (actor: Actor, from: At, tx: Tx): State =>
  goTo(actor, { pc: 'sent', tx, from, ageMs: 0 });

/** Sends what may grant the slot, and remembers that it was tried: sendGrant. */
export function sendGrant(actor: Actor, from: At, tx: Grant): State {
  const { attempts } = actor.process;
  const isNew = !attempts.some((attempt) => attempt.slot === tx.slot);
  const attempt = { slot: tx.slot, ...(tx.before && { before: tx.before }) };
  const at: At = { pc: 'sent', tx: tx.tx, from, ageMs: 0, isNew };
  return goTo(actor, at, isNew ? { attempts: [...attempts, attempt] } : {});
}

interface Grant {
  readonly tx: Tx;
  readonly slot: number;
  /** This node's claim before. */
  readonly before?: Claim | undefined;
}

/** The old session is destroyed, so that nothing of it can arrive late; a new one is made. */
export function renewSession({ state, i, process }: Actor): State {
  const fresh = withNewSession(withoutSession(state, process.session));
  return withProcess(fresh.state, i, { session: fresh.session });
}

/** The process has a slot: its command starts, unless it asks first; or `acquire` turns it into what it holds. */
export function startRun(actor: Actor, how: string, lease: Lease): Next {
  const { acquires, publishes, attempts } = actor.process;
  if (publishes) return begins(actor, how, lease);
  if (!acquires) return handOver(actor, how, { lease, at: { pc: 'run' } });
  // `decline` knows of this slot alone.
  const own = attempts.filter(({ slot }) => slot === lease.slot);
  return step(
    actor,
    `${how} slot ${lease.slot}`,
    goTo(actor, { pc: 'keep' }, { lease: { ...lease, provedMs: 0 }, attempts: own }),
  );
}

/** The condition was last looked at before the slot was asked for, or, which is later, now. */
function begins(actor: Actor, how: string, lease: Lease): Next {
  const condition = get(actor.state.store, stateKeys.condition)?.modifyIndex ?? 0;
  const own = actor.process.attempts.filter(({ slot }) => slot === lease.slot);
  const value = get(actor.state.store, stateKeys.during)?.value;
  const { showing } = actor.state;
  const before = { ...(value !== undefined && { value }), ...(showing !== undefined && { showing }) };
  const held = { ...lease, unbegun: { condition, before } };
  return step(
    actor,
    `${how} slot ${lease.slot}`,
    goTo(actor, { pc: actor.process.second ? 'second' : 'begin' }, { lease: held, attempts: own }),
  );
}

/** `start` took effect. */
export function startBegun(actor: Actor): Next {
  const { lease } = actor.process;
  if (!lease) throw new Error('no slot');
  const { slot, claim, index, provedMs, second } = lease;
  const held = { slot, claim, index, provedMs, ...(second && { second }) };
  return handOver(actor, 'may start', { lease: held, at: { pc: 'run' } });
}

/** The slot is held: nothing of runlock is there any more, and the node's work starts. */
export function startHeld(actor: Actor, how: string, { slot, claim, index }: Sighted): Next {
  const { i, process } = actor;
  const bare = replaceProcess(actor.state, i, idle(process, process.runs));
  const lease = { slot, claim, index, provedMs: 0 };
  return handOver({ ...actor, state: bare }, how, { lease, at: { pc: 'held' } });
}

function handOver(actor: Actor, how: string, { lease, at }: { lease: Lease; at: At }): Next {
  const state = goTo(actor, at, { lease, attempts: [] });
  const broken = judgeToken(state, lease.slot, lease.index);
  const ghosts = state.ghosts.map((ghost, slot) =>
    slot === lease.slot ? { ...ghost, token: lease.index } : ghost,
  );
  const what = `${how}: its command starts in slot ${lease.slot}, token ${lease.index}`;
  return { ...step(actor, what, { ...state, ghosts }), ...(broken !== undefined && { broken }) };
}

/** A step with what the transaction broke, if it did. */
export const judged = (next: Next, { broken }: Sent): Next =>
  broken === undefined ? next : { ...next, broken };
