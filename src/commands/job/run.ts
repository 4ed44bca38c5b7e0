/** `runlock job`: each action in a file of its own. */
import type { Asked } from '../../cli/command.ts';
import { assertNever } from '../../errors.ts';
import type { Platform } from '../platform.ts';
import { withConsul } from '../with-consul.ts';
import type { JobOptions } from './request.ts';

export function run({ common, options }: Asked<JobOptions>, platform: Platform): Promise<number> {
  return withConsul({ common, stoppable: true }, platform, async (ways) => {
    switch (options.action) {
      case 'start':
        return (await import('./start.ts')).start(ways, options, platform);
      case 'retry':
        return (await import('./retry.ts')).retry(ways, options, platform);
      case 'watch':
        return (await import('./watch.ts')).watch(ways, options, platform);
      case 'logs':
        return (await import('./logs.ts')).logs(ways, options, platform);
      case 'show':
        return (await import('./show.ts')).show(ways, options, platform);
      case 'list':
        return (await import('./show.ts')).list(ways, options, platform);
      case 'cancel':
        return (await import('./cancel.ts')).cancel(ways, options, platform);
      default:
        return assertNever(options);
    }
  });
}
