/** What a process may do next. */
import { ask, askAgain, giveHeldBack, heldEndings, keepGranted, lookKept } from './holding.ts';
import { goTo, leave, spend, step } from './next.ts';
import type { Actor, Next } from './next.ts';
import { begin, finishRun, finishes, giveUp, lookFinish } from './publishing.ts';
import { releaseThere, takeSecond } from './second.ts';
import { close, endings, giveBack, lookAgain, record, undo, watch } from './running.ts';
import { sent, unanswered } from './sent.ts';
import type { Under } from './sent.ts';
import { transmit } from './transmit.ts';
import { adopt, down, findBefore, first, frozen, look, mark, start, wait } from './waiting.ts';
import { idle, isRunning, replaceProcess } from './world.ts';
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
    case 'down':
      return down(actor, at);
    case 'adopt':
      return adopt(actor);
    case 'frozen':
      return frozen(actor, at);
    case 'leave':
      return close(actor, at);
    case 'undo':
      return undo(actor, at);
    case 'second':
      return [takeSecond(actor) ?? giveUp(actor, 'finds the second group taken', 'idle')];
    case 'begin':
      return begin(actor);
    case 'run':
      return watch(actor);
    case 'end':
      return finishes(actor.process) ? finishRun(actor) : giveAllBack(actor);
    case 'look-finish':
      return lookFinish(actor);
    case 'look-again':
      return lookAgain(actor);
    case 'record':
      return record(actor);
    case 'keep':
      return keepGranted(actor);
    case 'look-kept':
      return lookKept(actor);
    case 'ask':
      return ask(actor, at.held);
    case 'held':
      return [...heldEndings(actor), ...askAgain(actor)];
    case 'end-held':
      return giveHeldBack(actor);
  }
}

function giveAllBack(actor: Actor): Next[] {
  const there = releaseThere(actor);
  return there ? [there] : giveBack(actor);
}

/** The command ends while the lock is being taken back, or what is held is asked for again: nobody waits for that answer. */
function endMeanwhile(actor: Actor, at: Under): Next[] {
  const ends = at.from.pc === 'run' ? endings : at.from.pc === 'held' ? heldEndings : undefined;
  if (!ends) return [];
  const arrived = transmit(actor.world, actor.state, at.tx);
  const silence = unanswered(actor, at, { arrived, cost: undefined });
  return silence.flatMap(({ label, state, broken }) =>
    ends({ ...actor, state }).map((next) => ({
      ...next,
      label: `${label}; ${next.label}`,
      ...(broken !== undefined && { broken }),
    })),
  );
}

const WAITING = new Set<At['pc']>(['look', 'mark', 'wait', 'list', 'first', 'down', 'adopt', 'frozen']);

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

const comesBack = (process: Process) =>
  isRunning(process) ||
  process.lease?.unbegun !== undefined ||
  (process.acquires === true && process.lease !== undefined);

/** The guard ends the command with its process. The node's next run comes some day. */
function crashes(actor: Actor): Next[] {
  const { state, process } = actor;
  if (process.at.pc === 'idle' || state.faults.crash === 0) return [];
  const { runs } = process;
  const dead = replaceProcess(state, actor.i, idle(process, comesBack(process) ? Math.max(runs, 1) : runs));
  return [step(actor, 'crashes', spend(dead, 'crash'))];
}
