/** `runlock acquire`: its outcome → exit status, and what is held → stdout. */
import type { Asked } from '../../cli/command.ts';
import type { AcquireDeps, AcquireOptions, AcquireResult } from './acquire.ts';
import { EXIT_LOST, assertNever } from '../../errors.ts';
import type { Platform } from '../platform.ts';
import { printJson } from '../print.ts';
import { liveOf, withWays } from '../with-consul.ts';
import { usage } from '../../cli/values.ts';
import { isChanged } from '../../process/program.ts';
import { NOT_UTF8 } from '../../state/document.ts';

export interface AcquireAsked extends Asked<AcquireOptions & { readonly json: boolean }> {
  readonly conflictExitCode: number;
}

export function run(
  { common, options, conflictExitCode }: AcquireAsked,
  platform: Platform,
): Promise<number> {
  if (options.when?.some(({ text }) => isChanged(text))) throw usage(`--when: ${NOT_UTF8}`);
  return withWays({ common, stoppable: true }, platform, async ({ deps: own, signal, connect }) => {
    const [{ acquireSlot }, consul, live] = await Promise.all([
      import('./acquire.ts'),
      connect(),
      liveOf(platform, common),
    ]);
    const { env, newRunId } = platform;
    const runFiles = platform.runFiles(own.emit);
    const deps: AcquireDeps = { ...own, consul, env, newRunId, runFiles, ...live };
    const result = await acquireSlot(deps, options, signal);
    if (result.kind === 'held' && options.json)
      await printJson(platform, { already: result.already, ...result.held });
    return toStatus(result, conflictExitCode);
  });
}

function toStatus(result: AcquireResult, conflictExitCode: number): number {
  switch (result.kind) {
    case 'held':
      return 0;
    case 'busy':
      return conflictExitCode;
    case 'lost':
      return EXIT_LOST;
    default:
      return assertNever(result);
  }
}
