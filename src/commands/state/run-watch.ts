/** `runlock state watch`: a line for each state, and for each change of one, until a signal. */
import type { Asked } from '../../cli/command.ts';
import { exitStatusOf } from '../../platform/signals.ts';
import { followStates } from '../../state/read.ts';
import { renderJson } from '../../text/visible.ts';
import type { Platform } from '../platform.ts';
import { describeChange, stateReport } from './describe.ts';
import type { StateOptions } from './run.ts';

/** Ctrl-C is how one leaves, so its exit status is 0; another signal's is 128 and its number. */
export async function runWatch(
  { common, options }: Asked<StateOptions>,
  platform: Platform,
): Promise<number> {
  const stopped = new AbortController();
  const { signal } = stopped;
  let status = 0;
  platform.listenToSignals().listen((name) => {
    status = name === 'SIGINT' ? 0 : exitStatusOf(name);
    stopped.abort();
  });
  // Whoever read the lines and left wants no more.
  platform.stdout.on('error', () => stopped.abort());
  const { clock } = platform.deps;
  const { prefix, json } = options;
  const consul = await platform.connect(platform.makeLog(common));
  const paths = options.action === 'watch' ? options.paths : [];
  try {
    return await followStates(
      { consul, clock, prefix, signal },
      {
        paths,
        changed: (change) =>
          platform.write(
            json ? `${renderJson({ v: 1, ...stateReport(change) })}\n` : describeChange(change, clock.now()),
          ),
      },
    );
  } catch (error) {
    if (!signal.aborted) throw error;
    return status;
  } finally {
    stopped.abort();
    consul.close();
  }
}
