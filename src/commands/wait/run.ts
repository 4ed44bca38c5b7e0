/** `runlock wait`: its verdict → stdout, stderr and exit status. */
import type { Asked } from '../../cli/command.ts';
import { usage } from '../../cli/values.ts';
import { insideOf, runOf } from '../../conditions/own-run.ts';
import type { Looked } from '../../conditions/watch.ts';
import { RunlockError, exitStatus } from '../../errors.ts';
import { createOutput } from '../../platform/terminal.ts';
import { isChanged } from '../../process/program.ts';
import { NOT_UTF8 } from '../../state/document.ts';
import type { Platform } from '../platform.ts';
import { printJson } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import type { ConsulWays } from '../with-consul.ts';
import { endText, liveLine, missing, stopText, waitReport } from './describe.ts';
import { wait } from './wait.ts';
import type { WaitOptions } from './wait.ts';

export type WaitAsked = Asked<WaitOptions & { readonly json: boolean; readonly onTimeout: 'fail' | 'pass' }>;

export function run({ common, options }: WaitAsked, platform: Platform): Promise<number> {
  if (options.goals.some(({ condition }) => isChanged(condition.text))) throw usage(NOT_UTF8);
  return withConsul({ common, stoppable: true }, platform, (ways) =>
    waitWith(ways, { common, options }, platform),
  );
}

async function waitWith(
  { consul, deps, signal }: ConsulWays,
  { common, options }: WaitAsked,
  platform: Platform,
): Promise<number> {
  const inside = runOf(platform.env);
  if (inside) deps.emit({ event: 'wait-in-run', ...insideOf(inside) });
  const told: boolean[] = [];
  const line = drawLine(platform, { common, options });
  const looked = (now: Looked, waitedMs: number) => {
    line.show(now, waitedMs);
    for (const [i, { condition, holds, is }] of now.judged.entries()) {
      // Report conditions as the user wrote them: `--while` is stored as its opposite.
      const asWritten = holds === (options.goals[i]?.option === 'until');
      if (told[i] === asWritten) continue;
      told[i] = asWritten;
      deps.emit({ event: 'condition', condition: condition.text, holds: asWritten, detail: { is } });
    }
  };
  try {
    const result = await wait({ consul, deps, inside, looked }, options, signal);
    line.close();
    const { kind, waitedMs } = result;
    const outcome = kind === 'timed-out' && options.onTimeout === 'pass' ? 'passed' : kind;
    const detail = { text: endText(result, options) };
    deps.emit({ event: 'wait-ended', outcome, waitedMs: Math.round(waitedMs), detail });
    if (options.json) await printJson(platform, waitReport(result, options));
    return outcome === 'timed-out' ? exitStatus(new RunlockError('busy', '')) : 0;
  } catch (error) {
    line.close();
    if (signal.aborted && error === signal.reason) {
      const waitedMs = line.waitedMs();
      const detail = { text: stopText({ judged: line.judged(), waitedMs }, options) };
      deps.emit({ event: 'wait-ended', outcome: 'stopped', waitedMs: Math.round(waitedMs), detail });
    }
    throw error;
  } finally {
    line.close();
  }
}

const TICK_MS = 1_000;

/** Shows what is missing, only on a terminal. */
function drawLine(
  { terminal, deps: { clock }, stderr, env }: Platform,
  { common: { quiet, logFormat }, options }: WaitAsked,
) {
  const live = createOutput({ env, isTTY: stderr.isTTY }).live && !quiet && logFormat === 'text';
  const closed = new AbortController();
  const { signal } = closed;
  const startedMs = clock.monotonicMs();
  let latest: Looked | undefined;
  const waited = () => clock.monotonicMs() - startedMs;
  const draw = () => {
    if (!latest || signal.aborted) return;
    const waitedMs = waited();
    const judged = latest.at(clock.earliest());
    // The wait is about to end.
    if (options.stableMs === 0 && missing(judged, options).length === 0) return;
    terminal.draw(liveLine({ judged, waitedMs }, options, terminal.columns()));
  };
  const tick = async () => {
    for (;;) {
      // Shorter waits show no live line.
      await clock.sleep(TICK_MS, { signal });
      draw();
    }
  };
  if (live) tick().catch(() => undefined);
  return {
    show: (looked: Looked, waitedMs: number) => {
      latest = looked;
      if (live && waitedMs > TICK_MS) draw();
    },
    waitedMs: waited,
    /** As it is now, by the last look; undefined: there was none. */
    judged: () => latest?.at(clock.earliest()),
    /** May be called twice. */
    close: () => {
      if (live && !signal.aborted) terminal.draw('');
      closed.abort();
    },
  };
}
