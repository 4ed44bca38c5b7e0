/** `runlock acquire`: its outcome → exit status, and what is held → stdout. */
import type { Asked } from '../../cli/command.ts';
import type { AcquireDeps, AcquireOptions, AcquireResult } from './acquire.ts';
import { EXIT_LOST, assertNever } from '../../errors.ts';
import type { Platform } from '../platform.ts';
import { printJson } from '../print.ts';
import { liveOf } from '../with-consul.ts';
import { exitStatusOf } from '../../platform/signals.ts';

export interface AcquireAsked extends Asked<AcquireOptions & { readonly json: boolean }> {
  readonly conflictExitCode: number;
}

export async function run(
  { common, options, conflictExitCode }: AcquireAsked,
  platform: Platform,
): Promise<number> {
  // Before anything else: a signal that comes early must not find the default action.
  const signals = platform.listenToSignals();
  const emit = platform.makeLog(common);
  const [{ acquireSlot }, consul, live] = await Promise.all([
    import('./acquire.ts'),
    platform.connect(emit),
    liveOf(platform, common),
  ]);
  const deps: AcquireDeps = {
    ...platform.deps,
    emit,
    consul,
    signals,
    env: platform.env,
    newRunId: platform.newRunId,
    runFiles: platform.runFiles(emit),
    ...live,
  };
  try {
    const result = await acquireSlot(deps, options);
    if (result.kind === 'held' && options.json)
      await printJson(platform, { already: result.already, ...result.held });
    return toStatus(result, conflictExitCode);
  } finally {
    consul.close();
  }
}

function toStatus(result: AcquireResult, conflictExitCode: number): number {
  switch (result.kind) {
    case 'held':
      return 0;
    case 'busy':
      return conflictExitCode;
    case 'lost':
      return EXIT_LOST;
    case 'interrupted':
      return exitStatusOf(result.signal);
    default:
      return assertNever(result);
  }
}
