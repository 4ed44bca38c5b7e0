/** `runlock state`: what was found or done → stdout and exit status. */
import type { Asked } from '../../cli/command.ts';
import { usage } from '../../cli/values.ts';
import { assertNever, reasonOf } from '../../errors.ts';
import { causesIn } from '../../lock/causes.ts';
import type { Deps } from '../../platform/deps.ts';
import { isChanged } from '../../process/program.ts';
import { deleteState, setState } from '../../state/change.ts';
import type { SetRequest } from '../../state/change.ts';
import { NOT_UTF8, checkValue, toValue } from '../../state/document.ts';
import { pruneStates } from '../../state/prune.ts';
import { getState, listStates } from '../../state/read.ts';
import type { Fault } from '../../state/read.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import type { ConsulWays } from '../with-consul.ts';
import {
  describeDelete,
  describeList,
  describePrune,
  describeSet,
  deleteReport,
  listReport,
  pruneReport,
  rawValue,
  setReport,
  stateReport,
} from './describe.ts';
import type { WatchRequest } from './run-watch.ts';

export type StateRequest =
  | ({ readonly action: 'set' } & Pick<SetRequest, 'path' | 'value' | 'only' | 'ttlMs' | 'touch'>)
  | { readonly action: 'get' | 'delete'; readonly path: string }
  /** `below`: '' for all. */
  | { readonly action: 'list'; readonly below: string }
  | WatchRequest
  | { readonly action: 'prune' };

export type StateOptions = StateRequest & { readonly prefix: string; readonly json: boolean };

/** As for grep: the state is not set, or does not match. */
const EXIT_NO = 1;

export async function run(asked: Asked<StateOptions>, platform: Platform): Promise<number> {
  const { common, options } = asked;
  if (options.action === 'watch')
    return (await import('./run-watch.ts')).runWatch({ ...asked, options }, platform);
  const request =
    options.action === 'set' ? { ...options, value: await valueOf(options, platform) } : options;
  return withConsul({ common, stoppable: true }, platform, (ways) => act(request, ways, platform));
}

/** @throws RunlockError `usage`: too long, or not UTF-8. */
async function valueOf(
  { value, only }: StateOptions & { action: 'set' },
  platform: Platform,
): Promise<string> {
  const words = [value, ...(only?.if === 'value' ? [only.value] : [])];
  if (words.some(isChanged)) throw usage(NOT_UTF8);
  if (value !== '-') return checkValue(value);
  const read = await platform.readStdin().catch((error: unknown) => {
    throw usage(`stdin: ${whyUnread(error)}; give a value of up to 4,096 bytes of UTF-8`);
  });
  // Probably closed, or the program that should have written the value failed.
  if (read.length === 0)
    throw usage(
      "stdin is empty or closed; give the value there, or '' in place of - to publish an empty value",
    );
  return toValue(read.at(-1) === LINE_BREAK ? read.subarray(0, -1) : read);
}

function whyUnread(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return UNREAD[code] ?? reasonOf(error);
}

const UNREAD: Readonly<Record<string, string>> = {
  EISDIR: 'it is a folder',
  EBADF: 'it is not open for reading',
};

const LINE_BREAK = 10;

async function act(
  options: Exclude<StateOptions, { action: 'watch' }>,
  { consul, deps, signal }: ConsulWays,
  platform: Platform,
): Promise<number> {
  const { json, prefix } = options;
  const { env } = platform;
  const changing = { consul, deps, prefix, signal };
  const looking = { consul, clock: deps.clock, prefix, signal };
  const now = deps.clock.now();
  switch (options.action) {
    case 'set': {
      const inRun = env['RUNLOCK_RUN_ID'];
      const result = await setState(changing, {
        ...options,
        by: env['RUNLOCK_RUN_NODE'] ?? platform.operator(),
        run: inRun,
        causes: causesIn(env),
        newId: platform.newRunId,
      });
      const text = () => describeSet(result, options.path, now);
      await print(platform, { json, data: setReport(result, options.path), text, isProse: true });
      return result.kind === 'refused' ? EXIT_NO : 0;
    }
    case 'get': {
      const found = await getState(looking, options.path);
      if (found || json) {
        const text = () => rawValue(found?.value ?? '', platform.stdout.isTTY);
        await print(platform, { json, data: stateReport({ path: options.path, state: found }), text });
      } else deps.emit({ event: 'state-not-set', path: options.path });
      return found ? 0 : EXIT_NO;
    }
    case 'list': {
      const found = await listStates(looking, options.below);
      const where = { prefix, below: options.below };
      await print(platform, {
        json,
        data: listReport(found, where),
        text: (output) => describeList(found, { ...output, now, ...where }),
        // A table fits already; without one there is a sentence.
        ...(found.states.length === 0 && { isProse: true }),
      });
      tellUnreadable(deps, found.unreadable);
      return 0;
    }
    case 'delete': {
      const result = await deleteState(changing, options.path);
      const text = () => describeDelete(options.path, result, now);
      await print(platform, { json, data: deleteReport(options.path, result), text, isProse: true });
      return 0;
    }
    case 'prune': {
      const pruned = await pruneStates(changing);
      const text = () => describePrune(pruned);
      await print(platform, { json, data: pruneReport(pruned), text, isProse: true });
      tellUnreadable(deps, pruned.unreadable);
      return 0;
    }
    default:
      return assertNever(options);
  }
}

/** A line for each: one unreadable state is no reason to say nothing of the others. */
function tellUnreadable({ emit }: Pick<Deps, 'emit'>, faults: readonly Fault[]): void {
  for (const { path, fault } of faults)
    emit({ event: 'state-unreadable', path, detail: { fault: fault.message } });
}
