/** Who of a run is still alive when nothing of runlock watches it any more (docs/adr/0004). */
import { statfsSync } from 'node:fs';
import { pid as ownPid } from 'node:process';
import type { Survivors } from '../platform/deps.ts';
import { followTree, liveStartTime, markedPids } from './process-tree.ts';
import { isPopulated as hasAnybody, members as membersOf } from './cgroup.ts';
import type { ProcessName, RunFile } from './run-file.ts';

const NOBODY: Survivors = { pids: [], guarded: false };

/**
 * `file`: what the run wrote down; without it only its marks tell. An ended run leaves nobody: what it left running is
 * a daemon. @throws when the host can't be looked at: that proves nothing.
 */
export function findSurvivors(run: string, file: RunFile | undefined, bootId: string): Survivors {
  if (file === undefined) return { pids: markedPids(run), guarded: false };
  if (file.ended) return NOBODY;
  if (file.bootId !== bootId) {
    const isSameBoot = file.bootId.split(' ')[0] === bootId.split(' ')[0];
    return isSameBoot ? seenFromHere(run, file) : NOBODY;
  }
  const guarded = file.guard !== undefined && isLive(file.guard);
  return { pids: livingOf(file, guarded ? [file.guard.pid] : []), guarded };
}

/** Of a run in other namespaces on this boot: its pids and start times say nothing here, its cgroup and its marks do. */
function seenFromHere(run: string, { cgroup }: RunFile): Survivors {
  const inside = cgroup === undefined ? [] : membersOf(cgroup);
  const pids = [...new Set([...inside, ...markedPids(run)])].filter((pid) => pid !== ownPid);
  const isHidden = pids.length === 0 && cgroup !== undefined && hasAnybody(cgroup);
  return { pids, guarded: false, ...(isHidden && { cgroup }) };
}

/** What another user wrote down leads root nowhere but to a cgroup: a file of theirs may never end. */
export function fromOtherUser({ cgroup, ...file }: RunFile): RunFile {
  return { ...file, ...(cgroup !== undefined && isCgroup(cgroup) && { cgroup }) };
}

/** CGROUP2_SUPER_MAGIC (statfs(2)). */
const CGROUP2 = 0x63677270;

function isCgroup(folder: string): boolean {
  try {
    return statfsSync(folder).type === CGROUP2;
  } catch {
    return false;
  }
}

export const isLive = ({ pid, startTime }: ProcessName): boolean => liveStartTime(pid) === startTime;

/** Whether nothing of a run is there, its daemons included: what it wrote down tells nobody anything. */
export function isOver(file: RunFile): boolean {
  return livingOf(file, []).length === 0;
}

function livingOf(file: RunFile, guard: readonly number[]): readonly number[] {
  const { command, members = [] } = file;
  // Only the command may be dead and count all the same: its group and session are its own for as long as somebody is
  // in them. Of others that are gone the pid may have been given to a stranger since the last look.
  const known = members.filter(isLive);
  const inside = () => (file.cgroup === undefined ? [] : membersOf(file.cgroup));
  const look = () => {
    const [first, ...rest] = [...(command ? [command] : []), ...known];
    const tree = followTree({
      nonce: file.nonce,
      command: first ?? NO_COMMAND,
      known: rest,
      inside,
      except: () => [ownPid, ...guard],
    });
    return tree.members().map(({ pid }) => pid);
  };
  // Who forks and ends during a look hides its child from it; where there is a cgroup the kernel says whether one must.
  for (let looks = 1; ; looks++) {
    const seen = look();
    const isPopulated = file.cgroup !== undefined && hasAnybody(file.cgroup);
    if (seen.length > 0 || (looks >= 2 && !isPopulated)) return seen;
    if (looks >= MOST_LOOKS) return [command?.pid ?? file.runlock.pid];
  }
}

/** By then a chain of forks was seen once, or is not to be seen from here at all. */
const MOST_LOOKS = 50;

/** No process has this pid: it was killed before its command had started, or that is all that is known. */
const NO_COMMAND: ProcessName = { pid: 2 ** 31 - 1, startTime: '' };
