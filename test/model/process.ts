/** What a process may do next. */
import { goTo, leave, spend, step } from './next.ts';
import type { Actor, Next } from './next.ts';
import { close, endings, giveBack, lookAgain, undo, watch } from './running.ts';
import { sent, unanswered } from './sent.ts';
import type { Under } from './sent.ts';
import { transmit } from './transmit.ts';
import { adopt, findBefore, first, frozen, look, mark, start, wait } from './waiting.ts';
import { isRunning } from './world.ts';
import type { At, Process } from './world.ts';

export function processSteps(actor: Actor): Next[] {
  const { at } = actor.process;
  return [...ownSteps(actor, at), ...interruptions(actor, at), ...crashes(actor)];
}

function ownSteps(actor: Actor, at: At): Next[] {
  switch (at.pc) {
    case 'idle':
      return start(actor);
    case 'look':
      return look(actor);
    case 'sent':
      return [...sent(actor, at), ...endMeanwhile(actor, at)];
    case 'mark':
      return mark(actor);
    case 'wait':
      return wait(actor, at.predecessor);
    case 'list':
      return findBefore(actor);
    case 'first':
      return first(actor, at.seen);
    case 'adopt':
      return adopt(actor);
    case 'frozen':
      return frozen(actor, at);
    case 'leave':
      return close(actor, at);
    case 'undo':
      return undo(actor, at);
    case 'run':
      return watch(actor);
    case 'end':
      return giveBack(actor);
    case 'look-again':
      return lookAgain(actor);
  }
}

/** The command ends while the lock is being taken back: nobody waits for that answer any more. */
function endMeanwhile(actor: Actor, at: Under): Next[] {
  if (at.from.pc !== 'run') return [];
  const arrived = transmit(actor.world, actor.state, at.tx);
  const silence = unanswered(actor, at, { arrived, cost: undefined });
  return silence.flatMap(({ label, state, broken }) =>
    endings({ ...actor, state }).map((next) => ({
      ...next,
      label: `${label}; ${next.label}`,
      ...(broken !== undefined && { broken }),
    })),
  );
}

const WAITING = new Set<At['pc']>(['look', 'mark', 'wait', 'list', 'first', 'adopt', 'frozen']);

/** A signal, or the end of `--wait`; and the news that the own session is gone. */
function interruptions(actor: Actor, at: At): Next[] {
  const { state, process } = actor;
  if (!WAITING.has(at.pc)) return [];
  const nexts: Next[] = [];
  if (state.faults.leave > 0) nexts.push(step(actor, 'gives up', spend(goTo(actor, leave('idle')), 'leave')));
  const isLost = process.session !== undefined && !state.store.sessions.includes(process.session);
  if (isLost && at.pc !== 'look' && at.pc !== 'mark')
    nexts.push(step(actor, 'learns that its session is gone', goTo(actor, leave('look'))));
  return nexts;
}

/** The guard ends the command with its process. The node's next run comes some day. */
function crashes(actor: Actor): Next[] {
  const { state, process } = actor;
  if (process.at.pc === 'idle' || state.faults.crash === 0) return [];
  const { node, hold, slots, aheadMs, runs } = process;
  const idle: Process = {
    ...{ node, hold, slots, aheadMs, at: { pc: 'idle' }, attempts: [] },
    runs: isRunning(process) ? Math.max(runs, 1) : runs,
  };
  const dead = { ...state, processes: state.processes.map((other, i) => (i === actor.i ? idle : other)) };
  return [step(actor, 'crashes', spend(dead, 'crash'))];
}
