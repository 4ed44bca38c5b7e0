/** `--splay`: the random delay before a run asks for anything. */
import { formatAge } from '../text/age.ts';
import { cut } from '../text/style.ts';
import type { ExecDeps } from './options.ts';

const SECOND_MS = 1_000;

/** Waits for a random part of `splayMs`; a terminal shows how much of it is left. @throws the signal's reason. */
export async function waitSplay(
  { clock, random, terminal }: Pick<ExecDeps, 'clock' | 'random' | 'terminal'>,
  splayMs: number,
  signal: AbortSignal,
): Promise<void> {
  const untilMs = clock.monotonicMs() + splayMs * random();
  try {
    for (;;) {
      signal.throwIfAborted();
      const leftMs = untilMs - clock.monotonicMs();
      if (leftMs <= 0) return;
      const line = `waiting ${formatAge(leftMs + SECOND_MS - 1)} before asking for a slot (--splay)`;
      terminal?.draw(cut(line, Math.max(1, terminal.columns() - 1)));
      await clock.sleep(terminal ? Math.min(leftMs, SECOND_MS) : leftMs, { signal });
    }
  } finally {
    terminal?.draw('');
  }
}
