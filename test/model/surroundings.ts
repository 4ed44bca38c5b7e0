/** What happens around the processes: time, sessions that end, late arrivals, operators, and hands in the store. */
import { encode } from '../../src/lock/records.ts';
import type { Claim, Freeze } from '../../src/lock/records.ts';
import { CLOCK_DIFFERENCE_MS, VANISHED_AFTER_MS } from '../../src/lock/decide.ts';
import type { Slot } from '../../src/lock/decide.ts';
import { spend } from './next.ts';
import type { Next } from './next.ts';
import { isDue } from './running.ts';
import { describe } from './sent.ts';
import { othersThere } from './second.ts';
import { get, transact } from './store.ts';
import type { Request } from './store.ts';
import { transmit, withStore, withoutSession } from './transmit.ts';
import { NOW_MS, handSet, isRunning, keys, slotsOf, stateKeys } from './world.ts';
import type { At, Process, Sender, State, Tx, TxName, World } from './world.ts';

export const surroundingSteps = (world: World, state: State): Next[] => [
  ...sessionEnds(state),
  ...lateArrivals(world, state),
  ...operatorActs(world, state),
  ...operatorLooks(world, state),
  ...hands(state),
  ...changes(state),
  ...othersThere(state),
  ...freezes(state),
  ...time(world, state),
];

/** A session that nobody renews ends some day, whatever else happens. */
function sessionEnds(state: State): Next[] {
  const used = new Set(state.processes.flatMap(({ session, lease }) => [session, lease?.second?.session]));
  return state.store.sessions.flatMap((session) => {
    const ended = withoutSession(state, session);
    if (!used.has(session)) return [{ label: `session ${session}, which nobody renews, ends`, state: ended }];
    return state.faults.expire > 0
      ? [{ label: `session ${session} ends`, state: spend(ended, 'expire') }]
      : [];
  });
}

function lateArrivals(world: World, state: State): Next[] {
  return state.late.flatMap((tx, at) => {
    const others = { ...state, late: state.late.filter((_, i) => i !== at) };
    const { result, state: after, broken } = transmit(world, others, tx);
    const how = result.kind === 'done' ? 'done' : `refused (${result.obstacle})`;
    const label = `late: ${tx.by.node} (${tx.by.run}) ${describe(tx)}: ${how}`;
    return [{ label, state: after, ...(broken !== undefined && { broken }) }];
  });
}

const OPERATOR: Sender = {
  node: 'operator',
  run: 'operator',
  session: '',
  hold: 'forever',
  slots: 1,
  aheadMs: 0,
};

/** `runlock release`: what it does about a slot that it sees. The owner's node was looked at as well. */
function intent(world: World, state: State, { slot, owner, lockedBy, strayLock }: Slot): Tx | undefined {
  if (!owner) return undefined;
  const { claim, index } = owner;
  if (lockedBy !== undefined) {
    if (claim.state === 'evicted') return undefined;
    const evicted: Claim = { ...claim, state: 'evicted', by: 'operator' };
    return { name: 'changeClaim', by: OPERATOR, slot, index, claim: evicted };
  }
  const runs = state.processes.some(
    (process) => process.lease?.claim.run === claim.run && isRunning(process),
  );
  if (runs && !world.trusting) return undefined;
  const stray = strayLock === undefined ? {} : { strayLock };
  return { name: 'clearClaim', by: OPERATOR, slot, index, ...stray };
}

/** An operator looks, and acts some time later; or, some day, clears at once what nobody stands behind. */
function operatorLooks(world: World, state: State): Next[] {
  return slotsOf(state.store).flatMap((slot) => {
    const tx = intent(world, state, slot);
    if (!tx) return [];
    const nexts: Next[] = [];
    const fault = tx.name === 'changeClaim' ? 'evict' : 'clear';
    if (!state.operator && state.faults[fault] > 0) {
      const label = `an operator looks at slot ${slot.slot}, for ${describe(tx)}`;
      nexts.push({ label, state: spend({ ...state, operator: tx }, fault) });
    }
    if (tx.name === 'clearClaim' && !world.trusting) {
      const { state: after, broken } = transmit(world, state, tx);
      const label = `an operator looks and clears slot ${slot.slot}`;
      nexts.push({ label, state: after, ...(broken !== undefined && { broken }) });
    }
    return nexts;
  });
}

function operatorActs(world: World, state: State): Next[] {
  const { operator: tx, ...others } = state;
  if (!tx) return [];
  const { result, state: after, broken } = transmit(world, others, tx);
  const how = result.kind === 'done' ? 'done' : `refused (${result.obstacle})`;
  return [
    { label: `operator ${describe(tx)}: ${how}`, state: after, ...(broken !== undefined && { broken }) },
  ];
}

/** `consul kv delete` and `consul kv put`: no transaction of runlock's. */
function hands(state: State): Next[] {
  const by = (operation: Request) => withStore(state, transact(state.store, [operation]).store);
  return state.ghosts.flatMap((_, slot) => {
    const [owner, lock] = [keys.owner(slot), keys.lock(slot)];
    const nexts: Next[] = [];
    if (state.faults.deleteClaim > 0 && get(state.store, owner))
      nexts.push({
        label: `a hand deletes ${owner}`,
        state: spend(by({ verb: 'delete', key: owner }), 'deleteClaim'),
      });
    if (state.faults.deleteLock > 0 && get(state.store, lock))
      nexts.push({
        label: `a hand deletes ${lock}`,
        state: spend(by({ verb: 'delete', key: lock }), 'deleteLock'),
      });
    if (state.faults.strayLock > 0 && !get(state.store, lock)) {
      const put = by({ verb: 'set', key: lock, value: '' });
      nexts.push({ label: `a hand writes ${lock}`, state: spend(put, 'strayLock') });
    }
    return nexts;
  });
}

/** `state set`, by somebody else: the two documents of each state take turns. */
function changes(state: State): Next[] {
  if (state.faults.change === 0) return [];
  return Object.entries(stateKeys).map(([name, key]) => {
    const put: Request = { verb: 'set', key, value: handSet(get(state.store, key)?.value) };
    const { showing, ...others } = withStore(state, transact(state.store, [put]).store);
    const isKept = name !== 'during' && showing !== undefined;
    const after: State = { ...others, ...(isKept && { showing }) };
    return { label: `a hand sets ${key}`, state: spend(after, 'change') };
  });
}

const iso = (ms: number): string => new Date(ms).toISOString();

/** A freeze that is past its end, one without an end, and none. */
function freezes(state: State): Next[] {
  if (state.faults.freeze === 0) return keys.freezes.flatMap((key) => thaw(state, key));
  const since = iso(NOW_MS);
  const set = (key: string, freeze: Freeze, label: string): Next => {
    const put: Request = { verb: 'set', key, value: encode(freeze) };
    return {
      label: `${label} ${key}`,
      state: spend(withStore(state, transact(state.store, [put]).store), 'freeze'),
    };
  };
  return keys.freezes.flatMap((key) => [
    set(key, { by: 'o', reason: 'r', since }, 'an operator freezes'),
    set(key, { by: 'o', reason: 'r', since, until: iso(NOW_MS - 1) }, 'past its end already: a freeze of'),
    ...thaw(state, key),
  ]);
}

function thaw(state: State, key: string): Next[] {
  if (!get(state.store, key)) return [];
  const { store } = transact(state.store, [{ verb: 'delete', key }]);
  return [{ label: `an operator thaws ${key}`, state: withStore(state, store) }];
}

/** How far in the past a time can lie and still make a difference. */
const PAST_MS = VANISHED_AFTER_MS + 2 * CLOCK_DIFFERENCE_MS;
const TIMES = /((?:heldUntil|missingSince)\W{1,7})(\d{4}-[\d:.T-]+Z)/g;

/** Time goes on for all at once, unless a command must be dead first. */
export function time({ tickMs }: World, state: State): Next[] {
  if (tickMs === 0 || state.processes.some((process) => isDue(process, tickMs))) return [];
  const aged = (ms: number) => Math.min(ms + tickMs, VANISHED_AFTER_MS);
  const ghosts = state.ghosts.map((ghost, slot) => {
    const isLocked = get(state.store, keys.lock(slot))?.session !== undefined;
    return isLocked || !get(state.store, keys.owner(slot))
      ? ghost
      : { ...ghost, quietMs: aged(ghost.quietMs) };
  });
  const processes = state.processes.map((process) => later(process, tickMs));
  const text = JSON.stringify({ ...state, ghosts, processes });
  const shifted = text.replace(TIMES, (_, name: string, at: string) => {
    return name + iso(Math.max(Date.parse(at) - tickMs, NOW_MS - PAST_MS));
  });
  return [{ label: `${tickMs / 1000} s pass`, state: JSON.parse(shifted) as State }];
}

/** With `hold = forever` no proof ever grows old, and no answer comes too late. */
function later(process: Process, tickMs: number): Process {
  const { lease, hold, acquires } = process;
  const at = laterAt(process.at, tickMs, hold !== 'forever');
  if (lease?.unbegun && hold !== 'forever') {
    const provedMs = Math.min(lease.provedMs + tickMs, VANISHED_AFTER_MS);
    return { ...process, at, lease: { ...lease, provedMs } };
  }
  if (!lease || lease.outcome !== undefined || hold === 'forever' || acquires) return { ...process, at };
  return { ...process, at, lease: { ...lease, provedMs: lease.provedMs + tickMs } };
}

const PROOFS = new Set<TxName>([
  ...(['grant', 'takeOver', 'comeBack', 'moveDown', 'takeBack', 'claimAgain', 'start'] as const),
]);

function laterAt(at: At, tickMs: number, ages: boolean): At {
  if (at.pc === 'first' || at.pc === 'down') {
    const seen = at.seen.map((one) => ({ ...one, agoMs: Math.min(one.agoMs + tickMs, VANISHED_AFTER_MS) }));
    return { ...at, seen };
  }
  if (at.pc !== 'sent') return at;
  return {
    ...at,
    from: laterAt(at.from, tickMs, ages),
    ageMs: ages && PROOFS.has(at.tx.name) ? Math.min(at.ageMs + tickMs, VANISHED_AFTER_MS) : 0,
  };
}
