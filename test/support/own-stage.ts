// A stage for tests that run at the same time: with several of them under way vitest does not know whose end it is.
import type { Agent } from './consul.ts';
import { end, scene } from './processes.ts';
import type { Scene } from './processes.ts';
import { spawnRunlock } from './program.ts';
import type { Running, StartOptions } from './program.ts';

export interface OwnStage extends Scene, Disposable {
  /** Starts `runlock <args>`; it ends with the stage. */
  start(agent: Pick<Agent, 'env'>, args: readonly string[], options?: StartOptions): Running;
  /** Ends this process, too, with the stage. */
  adopt(pid: number): void;
}

/** For `using`. */
export function ownStage(): OwnStage {
  const made = scene();
  const adopted: number[] = [];
  const started: { end: () => void }[] = [];
  return {
    ...made,
    start: (agent, args, options) => {
      const running = spawnRunlock(agent, args, options);
      started.push(running);
      return running;
    },
    adopt: (pid) => void adopted.push(pid),
    [Symbol.dispose]: () => {
      for (const running of started) running.end();
      adopted.forEach(end);
      made.clean();
    },
  };
}
