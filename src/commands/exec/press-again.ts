/** Ctrl-C in a terminal is the command's own business. Where it goes on all the same, a second one soon after ends it. */
import { basename } from 'node:path';
import type { Supervised } from '../../process/command.ts';
import type { ExecDeps, ExecOptions } from '../exec-deps.ts';

/** A command that ends by Ctrl-C has ended by then, most of the time. */
const NOTICE_MS = 500;
const AGAIN_MS = 3_000;

/** Returns what is to be called when Ctrl-C has been passed on, with the time of the key press; `end` ends the command. */
export function watchInterrupts(
  { clock, emit }: ExecDeps,
  it: {
    readonly command: Pick<Supervised, 'ended'>;
    readonly options: Pick<ExecOptions, 'command' | 'killAfterMs'>;
    readonly end: () => void;
  },
): (atMs: number) => void {
  const { command, killAfterMs } = it.options;
  let untilMs = -Infinity;
  const notice = new AbortController();
  void it.command.ended.then(() => notice.abort());
  return (atMs) => {
    if (notice.signal.aborted) return;
    if (atMs <= untilMs) {
      notice.abort();
      it.end();
      return;
    }
    untilMs = atMs + AGAIN_MS;
    const { signal } = notice;
    void clock.sleep(NOTICE_MS, { signal }).then(
      () => {
        untilMs = clock.monotonicMs() + AGAIN_MS;
        const detail = { command: basename(command), againMs: AGAIN_MS, killAfterMs };
        emit({ event: 'interrupt-passed-on', detail });
      },
      () => undefined,
    );
  };
}
