// The built program, started as an operator would start it. Everything it starts is ended with the test.
import { onTestFinished } from 'vitest';
import { markedPids } from '../../src/process/process-tree.ts';
import type { Agent } from './consul.ts';
import { end } from './processes.ts';
import { spawnRunlock } from './program.ts';
import type { Result, Running, StartOptions } from './program.ts';

/** Starts `runlock <args>` against `agent` (or nothing that `env` does not name). */
export function startRunlock(
  agent: Pick<Agent, 'env'> | undefined,
  args: readonly string[],
  options: StartOptions = {},
): Running {
  const running = spawnRunlock(agent, args, options);
  onTestFinished(() => running.end());
  return running;
}

/** Runs `runlock <args>` to its end. */
export function runlock(
  agent: Pick<Agent, 'env'> | undefined,
  args: readonly string[],
  options?: StartOptions,
): Promise<Result> {
  return startRunlock(agent, args, options).ended;
}

/** Ends what still carries the mark of a run: for tests that kill runlock and its guard. */
export function endMarked(runId: string): void {
  for (const pid of markedPids(runId)) end(pid);
}
