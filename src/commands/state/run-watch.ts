/** `runlock state watch`: a line for each state, and for each change of one, until a signal. */
import type { Asked } from '../../cli/command.ts';
import { exitStatusOf } from '../../platform/signals.ts';
import { followStates } from '../../state/read.ts';
import type { Platform } from '../platform.ts';
import { printJsonLine } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import { describeChange, stateReport } from './describe.ts';

export interface WatchRequest {
  readonly action: 'watch';
  /** None: all. */
  readonly paths: readonly string[];
}

type WatchOptions = WatchRequest & { readonly prefix: string; readonly json: boolean };

/** Ctrl-C is how one leaves, so its exit status is 0; another signal's is 128 and its number. */
export function runWatch({ common, options }: Asked<WatchOptions>, platform: Platform): Promise<number> {
  const { prefix, json, paths } = options;
  const statusAfter = (name: NodeJS.Signals) => (name === 'SIGINT' ? 0 : exitStatusOf(name));
  return withConsul({ common, stoppable: true, statusAfter }, platform, async ({ consul, deps, signal }) => {
    const { clock } = deps;
    // Whoever read the lines and left wants no more.
    const left = new AbortController();
    platform.stdout.on('error', () => left.abort());
    const watched = { consul, clock, prefix, signal: AbortSignal.any([signal, left.signal]) };
    const changed = (change: Parameters<typeof describeChange>[0]) =>
      json
        ? printJsonLine(platform, stateReport(change))
        : platform.write(describeChange(change, clock.now()));
    try {
      return await followStates(watched, { paths, changed });
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (!left.signal.aborted) throw error;
      return 0;
    }
  });
}
