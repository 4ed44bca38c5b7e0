/** `runlock exec`: its outcome → exit status. */
import { constants } from 'node:os';
import type { Invocation } from '../cli/invocation.ts';
import type { ExecDeps } from '../commands/exec-deps.ts';
import type { ExecResult } from '../commands/exec.ts';
import { EXIT_LOST, EXIT_TIMED_OUT, assertNever } from '../errors.ts';
import { createOutput } from '../output.ts';
import type { Platform } from '../platform.ts';

export async function runExec(
  { common, options, conflictExitCode }: Extract<Invocation, { kind: 'exec' }>,
  platform: Platform,
): Promise<number> {
  // Before anything else: a signal that comes early must not find the default action.
  const signals = platform.listenToSignals();
  const log = platform.makeLog(common);
  const [{ exec }, consul] = await Promise.all([import('../commands/exec.ts'), platform.connect(log)]);
  const { live } = createOutput({ env: platform.env, isTTY: platform.stderr.isTTY });
  const deps: ExecDeps = {
    ...platform.deps,
    ...{ log, consul, signals, env: platform.env, newRunId: platform.newRunId },
    shareTerminal: platform.hasTerminal(),
    ...(live && !common.quiet && common.logFormat === 'text' && { terminal: platform.terminal }),
  };
  try {
    return toStatus(await exec(deps, options), conflictExitCode);
  } finally {
    consul.close();
  }
}

function toStatus(result: ExecResult, conflictExitCode: number): number {
  switch (result.kind) {
    case 'ended':
      return result.ending.kind === 'exited' ? result.ending.code : signalStatus(result.ending.signal);
    case 'interrupted':
      return signalStatus(result.signal);
    case 'timed-out':
      return EXIT_TIMED_OUT;
    case 'lost':
      return EXIT_LOST;
    case 'busy':
      return conflictExitCode;
    case 'dry-run':
      return 0;
    default:
      return assertNever(result);
  }
}

const signalStatus = (signal: NodeJS.Signals) => 128 + constants.signals[signal];
