// What a soak must not leave behind, and ends of runs that nothing explains.
import { readFileSync, readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { command } from '../history/checker.ts';
import type { History } from '../history/history.ts';
import type { Ended, Group, World } from './world.ts';

/** Keys, sessions and processes that should be gone. */
export async function leftOf(world: World): Promise<string[]> {
  const left = [];
  for (const group of world.groups.values())
    left.push(...(await leftInConsul(world, group)), ...processes(group));
  return left;
}

const STAYS = /^\.(?:tail|last|runs\/.+)$/;

async function leftInConsul({ server }: World, { plan, fleet }: Group): Promise<string[]> {
  const keys = (await fleet.keys()).filter((key) => !STAYS.test(key));
  const answer = await server.http('GET', '/v1/session/list?consistent');
  const sessions = (answer.json() as { ID: string; Name: string }[]).filter(
    ({ Name }) => Name === `runlock ${plan.name}`,
  );
  return [
    ...keys.map((key) => `${key} of ${plan.name} is left`),
    ...sessions.map(({ ID }) => `session ${ID} of ${plan.name} is left`),
  ];
}

/** Commands, by their script, and guards, by the runs that they guard. */
function processes({ plan, fleet, ended }: Group): string[] {
  const runs = new Set(ended.flatMap(({ run }) => run ?? []));
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      const words = commandLine(pid);
      const isGuard = words.includes('runlock-guard') && words.some((word) => runs.has(word));
      if (!isGuard && !words.some((word) => word.startsWith(fleet.folder))) return [];
      return [`process ${pid} of ${plan.name} is left: ${words.join(' ')}`];
    });
}

function commandLine(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

interface Ends {
  /** Runs whose hold ends may be cut off from Consul for so long that they must be killed. */
  readonly mayBeCutOff: boolean;
  readonly ended: readonly Ended[];
  readonly history: History;
}

/** Every end that neither its command nor what was done to it explains. */
export function surprisesOf({ mayBeCutOff, ended, history }: Ends): string[] {
  return ended.flatMap((one) => {
    const run = history.runs.find((trace) => trace.run === one.run);
    const noted = run && command(run)?.exitCode;
    const isBug = /report this as a bug|"level":"error".*"code":"bug"|^\s+at .*:\d+:\d+\)?$/m.test(
      one.stderr,
    );
    if (!isBug && explains(one, { mayBeCutOff, noted })) return [];
    const facts = `status ${one.status}, run ${one.run ?? 'none'}, its command noted ${noted ?? 'no end'}`;
    const marks = one.marks.size > 0 ? `; it was ${[...one.marks].join(', ')}` : '';
    return [`${one.node}: ${facts}${marks}; it said:\n${one.stderr}`];
  });
}

const { SIGHUP, SIGINT, SIGKILL, SIGTERM } = constants.signals;
export const UNREACHABLE = 69;
const BUSY = 75;
const LOST = 79;

function explains(
  { status, run, isHalves, marks }: Ended,
  { mayBeCutOff, noted }: { mayBeCutOff: boolean; noted: number | undefined },
): boolean {
  const by = (...signals: number[]) => signals.some((signal) => status === 128 + signal);
  if (marks.has('killed') && by(SIGKILL)) return true;
  // Taken away between its grant and its hold, or its second half could not reach Consul, or the work had to be killed.
  if (isHalves && status === LOST) return marks.has('evicted') || marks.has('stopped') || mayBeCutOff;
  if (isHalves && status === UNREACHABLE) return true;
  if (isHalves && by(SIGKILL) && (marks.has('crashed') || noted === undefined)) return run !== undefined;
  if (status === LOST) return run !== undefined && (marks.has('evicted') || mayBeCutOff);
  if (run === undefined) {
    return status === BUSY || status === UNREACHABLE || (marks.has('asked') && by(SIGTERM, SIGINT, SIGHUP));
  }
  if (noted !== undefined) return status === noted;
  if (marks.has('asked') && by(SIGTERM, SIGINT, SIGHUP, SIGKILL)) return true;
  // The guard heard nothing of a runlock that was stopped.
  return marks.has('stopped') && by(SIGTERM, SIGKILL);
}
