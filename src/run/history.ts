/** `runlock history`: the report → stdout; with `--silent-for`, whether anybody is silent → exit status. */
import type { Invocation } from '../cli/invocation.ts';
import { createOutput } from '../platform/terminal.ts';
import { renderJson } from '../text/visible.ts';
import { renderForget, renderHistory } from '../output/history.ts';
import type { Platform } from '../commands/platform.ts';

/** As grep and diff say it: there is something to see. */
const EXIT_FOUND = 1;
/** As monitoring plugins say UNKNOWN: of nobody at all it can't be told who is silent, and the name may be wrong. */
const EXIT_UNKNOWN = 3;

export async function runHistory(
  { common, options }: Extract<Invocation, { kind: 'history' }>,
  platform: Platform,
): Promise<number> {
  const { clock } = platform.deps;
  const log = platform.makeLog(common);
  const [{ history, forget }, consul] = await Promise.all([
    import('../commands/history.ts'),
    platform.connect(log),
  ]);
  const { signal } = new AbortController();
  try {
    if (options.forget !== undefined) {
      const report = await forget(consul, { ...options, node: options.forget }, signal);
      await platform.write(options.json ? `${renderJson(report, 2)}\n` : renderForget(report));
      return 0;
    }
    const now = clock.now();
    const report = await history(consul, { ...options, now, signal });
    const { isTTY, columns } = platform.stdout;
    const output = createOutput({ env: platform.env, isTTY, columns });
    const text = options.json ? `${renderJson(report, 2)}\n` : renderHistory(report, { ...output, now });
    await platform.write(text);
    if (options.silentForMs === undefined) return 0;
    if (report.known + report.problems.length === 0) return EXIT_UNKNOWN;
    // Of a record that can't be read nobody knows a good run either.
    return report.nodes.length + report.problems.length > 0 ? EXIT_FOUND : 0;
  } finally {
    consul.close();
  }
}
