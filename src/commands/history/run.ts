/** `runlock history`: the report → stdout; with `--silent-for`, whether a node is silent → exit status. */
import type { Asked } from '../../cli/command.ts';
import { renderForget, renderHistory } from '../../output/history.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import { forget, history } from './history.ts';
import type { HistoryRequest } from './history.ts';

/** Something was found, as for grep and diff. */
const EXIT_FOUND = 1;
/** No node is known, so the name of the group may be wrong. Monitoring plugins use 3 for UNKNOWN. */
const EXIT_UNKNOWN = 3;

export function run({ common, options }: Asked<HistoryRequest>, platform: Platform): Promise<number> {
  const { json } = options;
  return withConsul({ common }, platform, async ({ consul, deps, signal }) => {
    if (options.forget !== undefined) {
      const report = await forget(consul, { ...options, node: options.forget }, signal);
      await print(platform, { json, data: report, text: () => renderForget(report), isProse: true });
      return 0;
    }
    const now = deps.clock.now();
    const report = await history(consul, { ...options, now, signal });
    await print(platform, {
      json,
      data: report,
      text: (output) => renderHistory(report, { ...output, now }),
    });
    if (options.silentForMs === undefined) return 0;
    if (report.known + report.problems.length === 0) return EXIT_UNKNOWN;
    // An unreadable record counts as silent, because no good run is known from it.
    return report.nodes.length + report.problems.length > 0 ? EXIT_FOUND : 0;
  });
}
