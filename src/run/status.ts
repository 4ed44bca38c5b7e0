/** `runlock status`: the report → stdout. */
import type { Invocation } from '../cli/invocation.ts';
import { createOutput, renderJson } from '../output.ts';
import { renderStatus } from '../output/status.ts';
import type { Platform } from '../platform.ts';

export async function runStatus(
  { common, options }: Extract<Invocation, { kind: 'status' }>,
  platform: Platform,
): Promise<number> {
  const { clock } = platform.deps;
  const log = platform.makeLog(common);
  const [{ status }, consul] = await Promise.all([import('../commands/status.ts'), platform.connect(log)]);
  const { signal } = new AbortController();
  const report = await status(consul, { ...options, now: clock.now(), signal });
  const { isTTY, columns } = platform.stdout;
  const output = createOutput({ env: platform.env, isTTY, columns });
  const text = options.json
    ? `${renderJson(report, 2)}\n`
    : renderStatus(report, { ...output, now: clock.now() });
  await platform.write(text);
  consul.close();
  return 0;
}
