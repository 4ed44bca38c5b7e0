/** The turn of a run's node on this host (docs/adr/0041). */
import { basename } from 'node:path';
import type { NodeTurn } from '../lock/context.ts';
import type { Runner } from '../lock/records.ts';
import type { ExecDeps, ExecOptions } from './options.ts';

export interface OwnTurn extends NodeTurn {
  readonly leave: () => void;
  /** Resolves when nothing is left in Consul that says that the run waits. */
  readonly gone: () => Promise<unknown>;
}

/** The turn of the run's node on this host, which every run takes before its slots (docs/adr/0041). */
export function toTurn(
  { consul, clock, emit, run: { id: run }, openTurn }: ExecDeps,
  options: ExecOptions,
  { pid, startTime, bootId }: Runner,
): OwnTurn {
  const groups = options.groups.map(({ group }) => group);
  const since = new Date(clock.now()).toISOString();
  const command = basename(options.command);
  const ticket = { run, pid, startTime, bootId, command, groups, since };
  const turn = openTurn({ ticket, emit, monotonicMs: () => clock.monotonicMs() });
  const going: Promise<void>[] = [];
  let isTold = false;
  let isLent = false;
  let keeps = false;
  return {
    isLent: () => isLent,
    keeps: () => keeps,
    lend: () => {
      turn.lend();
      isLent = true;
    },
    ask: (node) => {
      const look = turn.look(node);
      if (look.kind === 'nowhere' && !isTold) emit({ event: 'no-turn', node, run, why: look.why });
      isTold ||= look.kind === 'nowhere';
      if (look.kind === 'mine' || look.kind === 'nowhere') {
        isLent = false;
        return undefined;
      }
      // It may lose its place in a queue for the turn that it has lent, but not again and again.
      keeps ||= isLent;
      const of = { ...options, groups, run };
      const later = (gone: Promise<void>) => void going.push(gone);
      return async (effects, waiting) => {
        const { waitForTurn } = await import('./turn-wait.ts');
        const leftQueue = isLent;
        isLent = false;
        turn.outOfQueue();
        return waitForTurn({ consul, turn, node, of, leftQueue, later }, effects, waiting);
      };
    },
    leave: () => {
      turn.leave();
      isLent = false;
    },
    gone: () => Promise.all(going),
  };
}
