/** `runlock state watch`: a line for each state, and for each change of one, until a signal. */
import type { Asked } from '../../cli/command.ts';
import { exitStatusOf } from '../../platform/signals.ts';
import { followStates } from '../../state/read.ts';
import type { Platform } from '../platform.ts';
import { printJsonLine, printProse } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import { describeChange, stateReport } from './describe.ts';

export interface WatchRequest {
  readonly action: 'watch';
  /** Empty: all states. */
  readonly paths: readonly string[];
}

type WatchOptions = WatchRequest & { readonly prefix: string; readonly json: boolean };

/** Ctrl-C is the normal way to leave (exit status 0); any other signal gives 128 plus its number. */
export function runWatch({ common, options }: Asked<WatchOptions>, platform: Platform): Promise<number> {
  const { prefix, json, paths } = options;
  const statusAfter = (name: NodeJS.Signals) => (name === 'SIGINT' ? 0 : exitStatusOf(name));
  return withConsul({ common, stoppable: true, statusAfter }, platform, async ({ consul, deps, signal }) => {
    const { clock } = deps;
    // If the reader of the lines has left, stop. The next line tells: nothing shows it before.
    const left = new AbortController();
    platform.stdout.on('error', () => left.abort());
    const watched = { consul, clock, prefix, signal: AbortSignal.any([signal, left.signal]) };
    const told = (change: Parameters<typeof describeChange>[0]) =>
      json
        ? printJsonLine(platform, stateReport(change))
        : printProse(platform, describeChange(change, clock.now()));
    const changed = (change: Parameters<typeof told>[0]) => untilStopped(told(change), signal);
    try {
      return await followStates(watched, { paths, changed });
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (!left.signal.aborted) throw error;
      return 0;
    }
  });
}

/** A reader that stalls must not keep a signal from ending the watch. */
function untilStopped(written: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason as Error);
    signal.throwIfAborted();
    signal.addEventListener('abort', stop, { once: true });
    void written.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}
