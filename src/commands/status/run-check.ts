/** `runlock status --check`: one line and an exit status, as monitoring systems expect them of a plugin. */
import type { Common } from '../../cli/command.ts';
import { checkReport, waitedIn } from './check.ts';
import type { CheckLimits, CheckResult, CheckState } from './check.ts';
import { proveRights } from '../../view/sources.ts';
import { readGroups } from '../../view/read.ts';
import type { StatusMode, StatusRequest } from './request.ts';
import { RunlockError, exitStatus, reasonOf } from '../../errors.ts';
import { renderCheck } from '../../output/check.ts';
import type { GroupView, StatusReport } from '../../view/report.ts';
import type { Platform } from '../platform.ts';
import { withWays } from '../with-consul.ts';
import type { Ways } from '../with-consul.ts';

const exitStatuses: Record<CheckState, number> = { OK: 0, WARNING: 1, CRITICAL: 2, UNKNOWN: 3 };

/** Monitoring systems allow a plugin ten seconds or more, and a check that they kill reports nothing. */
const LONGEST_CHECK_MS = 9_000;

interface CheckInvocation {
  readonly common: Common;
  readonly options: StatusRequest;
  readonly mode: Exclude<StatusMode, { kind: 'watch' }>;
}

/** Reports any failure as UNKNOWN, so that it can't be taken for a verdict. */
export async function runCheck(
  { mode, ...invocation }: CheckInvocation,
  platform: Platform,
): Promise<number> {
  const { common, options } = invocation;
  const quiet = { ...common, quiet: !common.verbose };
  return withWays({ common: quiet }, platform, async (ways) => {
    const result =
      mode.kind === 'check' ? await judge(ways, options, mode).catch(toUnknown) : unknown(mode.message);
    await platform.write(renderCheck(result));
    return exitStatuses[result.state];
  });
}

async function judge(
  { deps: { clock }, connect }: Ways,
  { prefix, groups }: StatusRequest,
  limits: CheckLimits,
): Promise<CheckResult> {
  const consul = await connect();
  const over = new AbortController();
  const done = new AbortController();
  const late = clock.sleep(LONGEST_CHECK_MS, { signal: done.signal }).then(
    () => over.abort(noAnswer(consul)),
    () => undefined,
  );
  const { signal } = over;
  try {
    const scope = { prefix, groups };
    const [report] = await Promise.all([
      readGroups(consul, { ...scope, now: clock.now(), signal }),
      proveRights(consul, scope, signal),
    ]);
    return checkReport(report, limits, await readBeside(report));
  } finally {
    done.abort();
    over.abort();
    await late;
  }

  /** Reads the groups in which runs of these groups wait, and those in which the runs that block them there wait. */
  async function readBeside({ groups: asked }: StatusReport): Promise<readonly GroupView[]> {
    const beside: GroupView[] = [];
    const missing = () => {
      const known = [...asked, ...beside].map(({ group }) => group);
      return waitedIn([...asked, ...beside]).filter((group) => !known.includes(group));
    };
    for (let names = missing(); names.length > 0; names = missing())
      beside.push(
        ...(await readGroups(consul, { prefix, groups: [...new Set(names)], now: clock.now(), signal }))
          .groups,
      );
    return beside;
  }
}

function noAnswer({ address }: { readonly address: string }): RunlockError {
  return new RunlockError(
    'unreachable',
    `Consul at ${address} did not answer within ${LONGEST_CHECK_MS / 1000}s`,
  );
}

function toUnknown(error: unknown): CheckResult {
  const bug = exitStatus(error) === 70 ? 'a bug in runlock, please report it: ' : '';
  return unknown(`${bug}${reasonOf(error)}`);
}

const unknown = (text: string): CheckResult => ({ state: 'UNKNOWN', text: [text], figures: [] });
