/** `runlock freeze`: what was done → stdout. */
import type { Invocation } from '../cli/invocation.ts';
import { renderJson } from '../text/visible.ts';
import type { Platform } from '../commands/platform.ts';

export async function runFreeze(
  { common, options }: Extract<Invocation, { kind: 'freeze' }>,
  platform: Platform,
): Promise<number> {
  const log = platform.makeLog(common);
  const [{ freeze, describeFreeze }, consul] = await Promise.all([
    import('../commands/freeze.ts'),
    platform.connect(log),
  ]);
  const { signal } = new AbortController();
  const deps = { ...platform.deps, log };
  const result = await freeze({ consul, deps }, { ...options, by: platform.operator() }, signal);
  const text = options.json
    ? `${renderJson({ v: 1, ...result }, 2)}\n`
    : describeFreeze(result, { ...options, now: deps.clock.now() });
  await platform.write(text);
  consul.close();
  return 0;
}
