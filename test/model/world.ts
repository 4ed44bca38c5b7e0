/** What the model knows at one moment: the store, every process, what is on its way, and which faults may still come. */
import { runningClaim } from '../../src/lock/context.ts';
import type { RunContext } from '../../src/lock/context.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import type { Claim, Hold, Outcome, Runner } from '../../src/lock/records.ts';
import { readSlots } from '../../src/lock/decide.ts';
import type { Sightings, Slot } from '../../src/lock/decide.ts';
import type { RunStep } from '../../src/lock/transactions.ts';
import { encodeState } from '../../src/state/document.ts';
import { stateKey } from '../../src/state/path.ts';
import { emptyStore, transact } from './store.ts';
import type { Store } from './store.ts';

/** Two levels of stop signs: the group's own and the root's. */
export const keys = groupKeys('p', 'g');

/** A second group, of runs that publish in two. */
export const secondKeys = groupKeys('p', 'h');

/** What runs publish, what they show meanwhile, and what they start under. */
export const stateKeys = {
  published: stateKey('p', 'published'),
  during: stateKey('p', 'during'),
  condition: stateKey('p', 'condition'),
} as const;

/** The wall clock always shows this: the model moves the past away from now instead. */
export const NOW_MS = Date.UTC(2026, 0, 1);

/** How often each fault may come. What is not named comes as often as it likes. */
export interface Faults {
  /** A session ends while its process lives. */
  expire: number;
  /** A process dies, its command with it. */
  crash: number;
  /** An answer is lost; the request may have taken effect or not. */
  lose: number;
  /** A request arrives after its sender gave up on it. */
  late: number;
  /** A signal, or the end of `--wait`, ends the wait; or nothing can be started. */
  leave: number;
  /** A run fails. */
  fail: number;
  /** A signal ends a run before its command has ended well. */
  stop: number;
  /** An operator evicts a run. */
  evict: number;
  /** An operator clears a claim, having looked some time before. */
  clear: number;
  /** Somebody deletes a claim or a lock by hand, or leaves a lock key that no session holds. */
  deleteClaim: number;
  deleteLock: number;
  strayLock: number;
  /** Somebody freezes or thaws the group. */
  freeze: number;
  /** What `acquire` holds is asked for once more, while the work goes on. */
  again: number;
  /** Somebody else sets a state: the condition, what is published, or what is shown meanwhile. */
  change: number;
  /** Somebody else evicts a run in the second group, or takes its slot there. */
  second: number;
}

export const noFaults: Faults = {
  ...{ expire: 0, crash: 0, lose: 0, late: 0, leave: 0, fail: 0, stop: 0, evict: 0, clear: 0 },
  ...{ deleteClaim: 0, deleteLock: 0, strayLock: 0, freeze: 0, again: 0, change: 0, second: 0 },
};

/** Who sent a transaction: as much of a run as its records say. */
export interface Sender {
  readonly node: string;
  readonly run: string;
  readonly session: string;
  readonly hold: Hold;
  /** How many slots it uses. */
  readonly slots: number;
  /** Which machine it is on: one unless given. */
  readonly machine?: string;
  /** As in `Process`. */
  readonly publishes?: boolean;
  readonly second?: boolean;
  /** How far this host's wall clock is ahead. */
  readonly aheadMs: number;
}

/** A transaction by the name that it has in src/lock/transactions.ts, with what its sender had seen. */
export type Tx = { readonly by: Sender } & (
  | { readonly name: 'enqueue' }
  /** `slot`, `index`: of the claim that was seen too high. */
  /** `frozen`: the freeze that it waits for then; else it moves its claim down. */
  | { readonly name: 'markNode'; readonly slot: number; readonly index: number; readonly frozen?: string }
  | { readonly name: 'grant'; readonly slot: number }
  | { readonly name: 'takeOver'; readonly slot: number; readonly index: number }
  /** `root`: of the claim that comes back, in a run that publishes. */
  | { readonly name: 'comeBack'; readonly slot: number; readonly index: number; readonly root?: string }
  | {
      readonly name: 'start';
      readonly slot: number;
      readonly index: number;
      /** The index of the condition at the last look; 0: it was not set. */
      readonly condition: number;
      readonly root: string;
      /** An operator had evicted it before it heard of its grant; it learns that when it looks. */
      readonly isEvicted?: true;
      readonly second?: HeldSecond;
    }
  | {
      readonly name: 'finish';
      readonly slot: number;
      readonly index: number;
      /** The index of what says already what is to be published; else it is set. */
      readonly same?: number;
      /** As in `start`. */
      readonly isEvicted?: true;
      readonly second?: HeldSecond;
      /** The index of what was shown meanwhile, and goes now. */
      readonly during?: number;
    }
  | {
      readonly name: 'moveDown';
      readonly slot: number;
      /** Where its claim stands. */
      readonly from: number;
      readonly index: number;
      readonly strayLock?: number;
    }
  | { readonly name: 'takeBack'; readonly slot: number; readonly index: number; readonly claim: Claim }
  | { readonly name: 'claimAgain'; readonly slot: number; readonly claim: Claim }
  | {
      readonly name: 'release';
      readonly slot: number;
      readonly index: number;
      readonly outcome: Outcome;
      readonly claim?: Claim;
    }
  | {
      readonly name: 'recordAlone';
      readonly slot: number;
      /** Of the record that was seen. */
      readonly index: number;
      readonly outcome: Outcome;
      readonly claimIndex: number;
    }
  | { readonly name: 'keep'; readonly slot: number; readonly index: number; readonly claim: Claim }
  | {
      readonly name: 'endHeld';
      readonly slot: number;
      readonly index: number;
      readonly outcome: 'succeeded' | 'failed';
      readonly claim?: Claim;
      readonly strayLock?: number;
    }
  | {
      readonly name: 'abandon' | 'notice';
      readonly slot: number;
      readonly index: number;
      readonly claim: Claim;
      readonly strayLock?: number;
    }
  | { readonly name: 'changeClaim'; readonly slot: number; readonly index: number; readonly claim: Claim }
  | { readonly name: 'removeSeen'; readonly slot: number; readonly index: number; readonly key: string }
  | {
      readonly name: 'clearClaim' | 'drop';
      readonly slot: number;
      readonly index: number;
      readonly strayLock?: number;
    }
);

export type TxName = Tx['name'];

/** Where a process is; the names of the functions in src/lock that are there too are in the comments. */
export type At =
  | { readonly pc: 'idle' }
  /** takeSteps */
  | { readonly pc: 'look' }
  /** A transaction was sent; `from` is where a lost answer leads back to, `isNew` a first attempt at its slot. */
  | {
      readonly pc: 'sent';
      readonly tx: Tx;
      readonly from: At;
      readonly ageMs: number;
      readonly isNew?: boolean;
    }
  /** clearOrBusy */
  | { readonly pc: 'mark' }
  /** untilGone */
  | { readonly pc: 'wait'; readonly predecessor: string }
  /** findBefore */
  | { readonly pc: 'list' }
  /** asFirst */
  | { readonly pc: 'first'; readonly seen: readonly Sighting[] }
  /** untilDown */
  | { readonly pc: 'down'; readonly seen: readonly Sighting[]; readonly slot: number; readonly index: number }
  /** adoptLate */
  | { readonly pc: 'adopt' }
  /** untilThawed */
  | { readonly pc: 'frozen'; readonly key: string; readonly from: At }
  /** giveUp, and what comes then: the next try, `holdOn`, or the end of the process */
  | { readonly pc: 'leave' | 'undo'; readonly then: 'look' | 'ask' | 'idle'; readonly held?: Sighted }
  /** watch */
  | { readonly pc: 'run' }
  /** The slot of the second group is to be taken. */
  | { readonly pc: 'second' }
  /** begin: the slot is held, and the command has not begun. */
  | { readonly pc: 'begin' }
  /** releaseOnce, or finishOnce */
  | { readonly pc: 'end' }
  /** look, of finishAll */
  | { readonly pc: 'look-finish' }
  /** lookAgain */
  | { readonly pc: 'look-again' }
  /** recordEnd */
  | { readonly pc: 'record' }
  /** keepOnce, of what was granted */
  | { readonly pc: 'keep' }
  /** lookAt, and keepOnce of what it shows */
  | { readonly pc: 'look-kept' }
  /** holdOn */
  | { readonly pc: 'ask'; readonly held: Sighted }
  /** Nothing of runlock runs: the node works in what it holds. */
  | { readonly pc: 'held' }
  /** giveHeldBack */
  | { readonly pc: 'end-held' };

/** A claim as it was seen. */
export interface Sighted {
  readonly slot: number;
  readonly claim: Claim;
  readonly index: number;
}

export interface Sighting {
  readonly slot: number;
  readonly index: number;
  readonly agoMs: number;
}

/** A slot that a process holds, as it knows it. */
export interface Lease {
  readonly slot: number;
  readonly claim: Claim;
  readonly index: number;
  /** How long ago the last proof was sent; stays 0 with `hold = forever`. */
  readonly provedMs: number;
  /** Unless the command has ended. */
  readonly outcome?: Outcome;
  /** As in `Live`. */
  readonly unanswered?: boolean;
  /** Before the command: the index of the condition at the last look (0: it was not set). */
  readonly unbegun?: { readonly condition: number; readonly before: Restored };
  /** A `finish` was refused: what is to be published is set in any case. */
  readonly isAgain?: boolean;
  readonly second?: HeldSecond;
}

/** The slot that a run holds in the second group. */
export interface HeldSecond {
  readonly session: string;
  readonly index: number;
}

/** What was shown before `start`, and whether it had to be seen. */
export interface Restored {
  readonly value?: string;
  readonly showing?: number;
}

export interface Process {
  readonly node: string;
  readonly hold: Hold;
  readonly slots: number;
  readonly aheadMs: number;
  /** How often it will start. */
  readonly runs: number;
  /** By `acquire` and `release`, instead of `exec`. */
  readonly acquires?: boolean;
  /** Its runs publish a state, show another meanwhile, and start under a third. */
  readonly publishes?: boolean;
  /** In two groups. */
  readonly second?: boolean;
  /** Another host with the same node name; each has booted once. */
  readonly machine?: string;
  readonly at: At;
  readonly run?: string;
  readonly session?: string;
  readonly attempts: readonly { readonly slot: number; readonly before?: Claim }[];
  readonly lease?: Lease;
  /** It gave up before its command. */
  readonly restores?: Restored;
}

/** What only the checker sees of a slot. */
export interface Ghost {
  /** The last fencing token that was handed to a command. */
  readonly token: number;
  /** For how long the claim has been as it is, without a lock. */
  readonly quietMs: number;
}

export interface State {
  readonly store: Store;
  readonly processes: readonly Process[];
  /** Sent, given up, and perhaps still to arrive. */
  readonly late: readonly Tx[];
  /** What an operator is about to do about what he saw. */
  readonly operator?: Tx;
  readonly ghosts: readonly Ghost[];
  readonly faults: Faults;
  /** As in `World`. */
  readonly records?: boolean;
  /** The slot under whose claim what a run shows meanwhile has to be seen: what only the checker knows. */
  readonly showing?: number;
  /** The next unused names. */
  readonly next: { readonly session: number; readonly run: number };
}

export interface World {
  readonly processes: readonly Pick<
    Process,
    'node' | 'hold' | 'slots' | 'aheadMs' | 'runs' | 'acquires' | 'publishes' | 'second' | 'machine'
  >[];
  /** Claims that are there from the beginning. */
  readonly kept?: readonly Kept[];
  readonly faults: Faults;
  /** Zero: time stands still, so nobody is ever believed dead. */
  readonly tickMs: number;
  /** Leaves something out of a transaction, to see what it is good for. */
  readonly mutate?: (name: TxName, steps: readonly RunStep[]) => readonly MutantStep[];
  /** The operator believes that a run whose session is gone is dead, without looking at its node. */
  readonly trusting?: boolean;
  /** Promise 1 is not asked for. */
  readonly mayOverlap?: boolean;
  /** States that differ only in what is recorded of past runs are told apart: for worlds with one slot. */
  readonly records?: boolean;
}

export type MutantStep =
  RunStep | { readonly operation: import('./store.ts').Request; readonly means: RunStep['means'] };

/** A claim of an earlier run. */
export interface Kept {
  readonly node: string;
  readonly slot: number;
  readonly state: Claim['state'];
  readonly hold: Hold;
}

function storeWith(kept: readonly Kept[]): Store {
  return kept.reduce<Store>((store, { node, slot, state, hold }, i) => {
    const by: Sender = { node, run: `r${i}`, session: '', hold, slots: slot + 1, aheadMs: 0 };
    const until = typeof hold === 'number' && state !== 'running';
    const heldUntil = until ? { heldUntil: new Date(NOW_MS + hold).toISOString() } : {};
    const value = encode({ ...runningClaim(contextOf(by)), state, ...heldUntil });
    return transact(store, [{ verb: 'set', key: keys.owner(slot), value }]).store;
  }, emptyStore);
}

/** What somebody else sets by hand: another document than the one that is there. */
export function handSet(before?: string): string {
  const [one, other] = ['v', 'w'].map((value) =>
    encodeState({ value, change: 'hand', by: 'hand', at: new Date(NOW_MS).toISOString() }),
  );
  return (before === other ? one : other) ?? '';
}

function withCondition(store: Store): Store {
  return transact(store, [{ verb: 'set', key: stateKeys.condition, value: handSet() }]).store;
}

export function initialState(world: World): State {
  const { kept = [] } = world;
  const used = [...world.processes.map(({ slots }) => slots), ...kept.map(({ slot }) => slot + 1)];
  const slots = Math.max(...used);
  const store = storeWith(kept);
  return {
    store: world.processes.some(({ publishes }) => publishes) ? withCondition(store) : store,
    processes: world.processes.map((process) => ({ ...process, at: { pc: 'idle' }, attempts: [] })),
    late: [],
    ghosts: Array.from({ length: slots }, () => ({ token: 0, quietMs: 0 })),
    faults: world.faults,
    ...(world.records && { records: true }),
    next: { session: 0, run: kept.length },
  };
}

export const withProcess = (state: State, i: number, changes: Partial<Process>): State => ({
  ...state,
  processes: state.processes.map((process, j) => (i === j ? { ...process, ...changes } : process)),
});

export const replaceProcess = (state: State, i: number, process: Process): State => ({
  ...state,
  processes: state.processes.map((other, j) => (i === j ? process : other)),
});

export const slotsOf = (store: Store): Slot[] =>
  readSlots(
    keys.root,
    store.entries.filter((entry) => entry.key.startsWith(keys.slotPrefix)),
  );

export const slotOf = (store: Store, slot: number): Slot | undefined =>
  slotsOf(store).find((candidate) => candidate.slot === slot);

export const sightingsOf = (seen: readonly Sighting[]): Sightings =>
  new Map(seen.map(({ slot, index, agoMs }) => [slot, { index, sinceMs: -agoMs }]));

/** Whether the command of this run is alive; of `acquire`, whether the node works in what it holds. */
export const isRunning = ({ lease, acquires }: Process): boolean =>
  lease !== undefined &&
  lease.outcome === undefined &&
  !lease.unbegun &&
  (!acquires || lease.claim.state === 'held');

/** As it was before it ever started. */
export function idle(process: Process, runs: number): Process {
  const { node, hold, slots, aheadMs, acquires, publishes, second, machine } = process;
  const how = {
    ...(acquires && { acquires }),
    ...(publishes && { publishes }),
    ...(second && { second }),
    ...(machine !== undefined && { machine }),
  };
  return { node, hold, slots, aheadMs, runs, ...how, at: { pc: 'idle' }, attempts: [] };
}

const runnerOn = (machine: string | undefined): Runner => ({
  ...{ pid: 1, startTime: '1', bootId: `b${machine ?? ''}` },
  ...(machine !== undefined && { machine }),
});

/** A run's context as src/lock has it; only the pure functions may be given it. */
export function contextOf({ run, node, hold, aheadMs, slots, machine }: Sender): RunContext {
  const refuse = () => {
    throw new Error('the model calls pure functions only');
  };
  const now = () => NOW_MS + aheadMs;
  const clock = { now, earliest: now, latest: now, monotonicMs: () => 0, sleep: refuse };
  return {
    consul: undefined as never,
    deps: { clock, random: refuse, emit: refuse, host: undefined as never },
    keys,
    run: { id: run, node, command: 'c', runner: runnerOn(machine), hold, slots },
  };
}

/** What a host's clock shows. */
export const nowOf = ({ aheadMs }: Pick<Process, 'aheadMs'>): number => NOW_MS + aheadMs;

export function senderOf(process: Process): Sender {
  const { node, hold, aheadMs, slots, machine, publishes, second, run, session } = process;
  if (run === undefined || session === undefined) throw new Error('no run');
  const how = {
    ...(machine !== undefined && { machine }),
    ...(publishes && { publishes }),
    ...(second && { second }),
  };
  return { node, run, session, hold, slots, aheadMs, ...how };
}
