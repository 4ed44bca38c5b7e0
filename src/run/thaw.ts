/** `runlock thaw`: what was done → stdout. */
import type { Invocation } from '../cli/invocation.ts';
import { renderJson } from '../text/visible.ts';
import type { Platform } from '../commands/platform.ts';

export async function runThaw(
  { common, options }: Extract<Invocation, { kind: 'thaw' }>,
  platform: Platform,
): Promise<number> {
  const log = platform.makeLog(common);
  const [{ thaw, describeThaw }, consul] = await Promise.all([
    import('../commands/thaw.ts'),
    platform.connect(log),
  ]);
  const { signal } = new AbortController();
  const deps = { ...platform.deps, log };
  const result = await thaw({ consul, deps }, options, signal);
  for (const problem of result.problems) {
    log('warning', `another freeze may stop it: ${problem}`, { event: 'freeze-unknown' });
  }
  const text = options.json
    ? `${renderJson({ v: 1, ...result }, 2)}\n`
    : describeThaw(result, { ...options, now: deps.clock.now() });
  await platform.write(text);
  consul.close();
  return 0;
}
