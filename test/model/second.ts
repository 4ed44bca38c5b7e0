/**
 * The second group of a run that publishes in two: only its slot, without a queue, and what others do there. Each look and
 * what follows from it is one step. Everything of the first group is as it is without.
 */
import { keptClaim } from '../../src/lock/run-record.ts';
import { nodeMark, returnedClaim, runningClaim } from '../../src/lock/context.ts';
import { isLeft, readSlots, standing } from '../../src/lock/decide.ts';
import type { Slot, Standing } from '../../src/lock/decide.ts';
import { encode } from '../../src/lock/records.ts';
import type { Outcome } from '../../src/lock/records.ts';
import { changeClaim, claimAgain, release, takeBack } from '../../src/lock/transactions.ts';
import type { Step } from '../../src/lock/transactions.ts';
import { goTo, spend, step } from './next.ts';
import type { Actor, Next } from './next.ts';
import { get, list, transact } from './store.ts';
import type { Request, Store } from './store.ts';
import { recordOf, withNewSession, withStore, withoutSession } from './transmit.ts';
import { contextOf, keys, secondKeys, senderOf, withProcess } from './world.ts';
import type { Lease, Process, Sender, State } from './world.ts';

const slotThere = (store: Store): Slot | undefined =>
  readSlots(keys.root, list(store, secondKeys.slotPrefix))[0];

/** Undefined: Consul refuses it. */
function sendThere(state: State, steps: readonly Step[]): State | undefined {
  const { answer, store } = transact(
    state.store,
    steps.map(({ operation }) => operation),
  );
  return answer.kind === 'done' ? withStore(state, store) : undefined;
}

const indexThere = ({ store }: State): number => get(store, secondKeys.owner(0))?.modifyIndex ?? 0;

const seatOf = (session: string) => ({ keys: secondKeys, session, slot: 0 });

/** Takes the slot of the second group, if nobody has it. Undefined: somebody has. */
export function takeSecond(actor: Actor): Next | undefined {
  const { process } = actor;
  if (!process.lease || slotThere(actor.state.store)?.owner) return undefined;
  const { state, session } = withNewSession(actor.state);
  const context = contextOf(senderOf(process));
  const taken = sendThere(state, claimAgain(seatOf(session), runningClaim(context), nodeMark(context)));
  if (!taken) return undefined;
  const lease: Lease = { ...process.lease, second: { session, index: indexThere(taken) } };
  return step(
    actor,
    'takes its slot of the second group',
    goTo({ ...actor, state: taken }, { pc: 'begin' }, { lease }),
  );
}

function standingThere({ store }: State, { node, run, lease }: Process): Standing {
  const session = lease?.second?.session ?? '';
  return standing({ node, run: run ?? '', session }, slotThere(store));
}

/** A look at the second group: a step, if there is anything to be done; `over`: the slot is not the run's any more. */
export function lookThere(actor: Actor): Next | 'over' | undefined {
  const { state, process, i } = actor;
  const { lease } = process;
  if (!lease?.second) return undefined;
  const now = standingThere(state, process);
  if (now.kind === 'mine') {
    const { index } = now.owner;
    if (index === lease.second.index) return undefined;
    const changes = { lease: { ...lease, second: { ...lease.second, index } } };
    return step(actor, 'looks at the second group', withProcess(state, i, changes));
  }
  if (now.kind !== 'unlocked' || isLeft(now.owner.claim)) return 'over';
  const retaken = retakeThere(state, process);
  if (!retaken) return 'over';
  return step(
    actor,
    'takes its lock of the second group back',
    withProcess(retaken.state, i, { lease: { ...lease, second: retaken.second } }),
  );
}

function retakeThere(
  state: State,
  process: Process,
): { state: State; second: NonNullable<Lease['second']> } | undefined {
  const owner = slotThere(state.store)?.owner;
  const old = process.lease?.second?.session;
  if (!owner) return undefined;
  const { state: fresh, session } = withNewSession(withoutSession(state, old));
  const context = contextOf(senderOf(process));
  const claim = returnedClaim(context, owner.claim);
  const taken = sendThere(fresh, takeBack(seatOf(session), claim, nodeMark(context), owner.index));
  return taken && { state: taken, second: { session, index: indexThere(taken) } };
}

/** Before the command: the session goes, and with it the claim. */
export function declineThere(state: State, process: Process): State {
  const second = process.lease?.second;
  if (!second) return state;
  const closed = withoutSession(state, second.session);
  const owner = slotThere(closed.store)?.owner;
  if (owner?.claim.run !== process.run) return closed;
  return withStore(closed, transact(closed.store, [{ verb: 'delete', key: secondKeys.owner(0) }]).store);
}

/** After the command, if the run is not recorded as good: a release of its own. */
export function releaseThere(actor: Actor): Next | undefined {
  const { state, i, process } = actor;
  const { second, ...lease } = process.lease ?? ({} as Lease);
  if (!second) return undefined;
  const now = standingThere(state, process);
  const back =
    now.kind === 'unlocked' && !isLeft(now.owner.claim) ? retakeThere(state, process) : { state, second };
  const outcome: Outcome = now.kind === 'evicted' ? 'evicted' : (lease.outcome ?? 'lost');
  const by = senderOf(process);
  const owner = back && slotThere(back.state.store)?.owner;
  const record = recordOf({ by, outcome, slot: 0, index: owner?.index ?? 0 });
  const kept = owner && keptClaim({ ...owner.claim, state: 'running' }, record, 0);
  const released =
    back && owner && sendThere(back.state, release(seatOf(back.second.session), record, owner.index, kept));
  const after = withoutSession(released ?? state, second.session);
  return step(actor, 'gives its slot of the second group back', withProcess(after, i, { lease }));
}

const OTHER: Sender = {
  ...{ node: 'other', run: 'other', session: '', hold: 'forever', slots: 1, aheadMs: 0 },
};

/** Others in the second group: an operator, and another node. */
export function othersThere(state: State): Next[] {
  if (!state.processes.some(({ second }) => second)) return [];
  const seen = slotThere(state.store);
  const owner = seen?.owner;
  if (!owner) return [];
  const { claim, index } = owner;
  const put = (request: Request): State => withStore(state, transact(state.store, [request]).store);
  const key = secondKeys.owner(0);
  if (claim.run === OTHER.run)
    return [{ label: 'the other run of the second group ends', state: put({ verb: 'delete', key }) }];
  const isAlive = state.processes.some(({ run }) => run === claim.run);
  if (!isAlive && seen.lockedBy === undefined)
    return [{ label: 'an operator clears the second group', state: put({ verb: 'delete', key }) }];
  if (state.faults.second === 0) return [];
  if (seen.lockedBy !== undefined) {
    if (claim.state === 'evicted') return [];
    const evicted = changeClaim(secondKeys, 0, { ...claim, state: 'evicted', by: 'operator' }, index);
    const after = sendThere(state, evicted) ?? state;
    return [{ label: 'an operator evicts in the second group', state: spend(after, 'second') }];
  }
  const taken = put({ verb: 'set', key, value: encode(runningClaim(contextOf(OTHER))) });
  return [{ label: 'another run takes over in the second group', state: spend(taken, 'second') }];
}
