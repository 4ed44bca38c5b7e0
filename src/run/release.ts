/** `runlock release`: what was done → stdout. */
import type { Invocation } from '../cli/invocation.ts';
import { renderJson } from '../output.ts';
import type { Platform } from '../platform.ts';

export async function runRelease(
  { common, options }: Extract<Invocation, { kind: 'release' }>,
  platform: Platform,
): Promise<number> {
  const log = platform.makeLog(common);
  const [{ release }, { describeRelease }, consul] = await Promise.all([
    import('../commands/release.ts'),
    import('../commands/describe-release.ts'),
    platform.connect(log),
  ]);
  const { signal } = new AbortController();
  const deps = { ...platform.deps, log };
  const result = await release({ consul, deps }, { ...options, by: platform.operator() }, signal);
  await platform.write(
    options.json ? `${renderJson({ v: 1, ...result }, 2)}\n` : describeRelease(result, options.prefix),
  );
  consul.close();
  return 0;
}
