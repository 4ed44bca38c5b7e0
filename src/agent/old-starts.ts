/**
 * Removes what this host has noted of started jobs (jobs/ledger.ts) once nothing needs it: the end of the request is more
 * than a day past, its run has ended, and Consul has no such request. Until then a restored snapshot may bring it back.
 */
import { lstatSync, rmdirSync, unlinkSync } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { isRunlockError } from '../errors.ts';
import { isJobId, isPrincipal, requestKeys } from '../jobs/keys.ts';
import type { JobRef } from '../jobs/keys.ts';
import { readLedger } from '../jobs/ledger.ts';
import type { LedgerEntry } from '../jobs/ledger.ts';
import { requestRule } from '../jobs/read.ts';
import { isNobody, isSameBoot } from '../platform/deps.ts';
import type { Part } from './parts.ts';
import { notedJobs } from './run-notes.ts';
import type { AgentWays } from './ways.ts';

const DAY_MS = 86_400_000;
/** After the start, for files of a runlock that did not note the request's end. */
const OLDER_MS = 31 * DAY_MS;
/** So many files are looked at, then others have their turn. */
const MOST_AT_ONCE = 100;
const PAUSE_MS = 1_000;

export type OldStartWays = Pick<AgentWays, 'consul' | 'deps' | 'prefix' | 'state' | 'runs'>;

/** Looks when the agent starts, and about once a day: not all agents at the same moment. */
export function oldStarts(ways: OldStartWays): Part {
  const { clock, random } = ways.deps;
  return {
    name: 'old starts',
    run: async (signal) => {
      for (;;) {
        await removeOldStarts(ways, signal);
        await clock.sleep(DAY_MS * (0.9 + 0.2 * random()), { signal });
      }
    },
  };
}

/** One look at all files. Follows no links. What can't be read, or removed, stays. */
async function removeOldStarts(ways: OldStartWays, signal: AbortSignal): Promise<void> {
  const { clock } = ways.deps;
  let looked = 0;
  const pace = async () => {
    looked += 1;
    if (looked % MOST_AT_ONCE === 0) await clock.sleep(PAUSE_MS, { signal });
  };
  const root = join(ways.state.path, 'jobs');
  for (const principal of await namesIn(root)) {
    if (!isPrincipal(principal)) continue;
    const folder = join(root, principal);
    let isAllowed = true;
    for (const name of await namesIn(folder)) {
      if (isDraft(name)) await removeDraft(join(folder, name), clock.earliest());
      else if (isJobId(name) && isAllowed)
        isAllowed = await removeStart(
          ways,
          { file: join(folder, name), ref: { principal, id: name } },
          signal,
        );
      await pace();
    }
    removeIfEmpty(ways, { folder, principal });
    await pace();
  }
}

const isDraft = (name: string) => name.endsWith('.new') && isJobId(name.slice(0, -'.new'.length));

/** That of a run which was killed while it wrote. */
async function removeDraft(file: string, nowMs: number): Promise<void> {
  const stats = await lstat(file).catch(() => undefined);
  if (stats?.isFile() && nowMs - stats.mtimeMs > DAY_MS) attempt(() => unlinkSync(file));
}

/** False: the token may not read the principal's requests. @throws RunlockError what else keeps Consul from an answer. */
async function removeStart(
  ways: OldStartWays,
  { file, ref }: { readonly file: string; readonly ref: JobRef },
  signal: AbortSignal,
): Promise<boolean> {
  const { consul, prefix } = ways;
  const entry = oldEntry(ways, file, ref);
  if (!entry) return true;
  try {
    const key = requestKeys(prefix, ref.principal).spec(ref.id);
    const found = await consul.get(key, { signal, rule: requestRule(prefix) });
    if (found.entry) return true;
  } catch (error) {
    // Hidden is not gone.
    if (isRunlockError(error, 'forbidden')) return false;
    throw error;
  }
  // This agent starts the processes that write here, and none between this look and the removal: the name may have
  // become another request's while Consul answered.
  const now = oldEntry(ways, file, ref);
  if (now?.run === entry.run) attempt(() => unlinkSync(file));
  return true;
}

/** What is noted, if only Consul may still need it. */
function oldEntry({ deps, state, runs }: OldStartWays, file: string, ref: JobRef): LedgerEntry | undefined {
  if (!isOwn(file, 'isFile')) return undefined;
  const ledger = readLedger(state.path, ref);
  if (ledger.kind !== 'started') return undefined;
  const { entry } = ledger;
  const { until, startedAt } = entry;
  const untilMs = until === undefined ? Date.parse(startedAt) + OLDER_MS : Date.parse(until);
  if (deps.clock.earliest() - untilMs <= DAY_MS) return undefined;
  return !runs.isAlive(ref) && hasEnded(deps, entry) ? entry : undefined;
}

function hasEnded({ host, emit }: OldStartWays['deps'], { bootId, end, run }: LedgerEntry): boolean {
  if (!isSameBoot(bootId, host.bootId)) return true;
  if (end) return end.state !== 'rebooting';
  try {
    return isNobody(host.survivors(run, emit));
  } catch {
    // Nobody knows.
    return false;
  }
}

/** A process that is about to note its start has made sure that the folder is there. */
function removeIfEmpty(
  { state, runs }: OldStartWays,
  { folder, principal }: { readonly folder: string; readonly principal: string },
): void {
  if (notedJobs(state.path, principal).some((ref) => runs.isAlive(ref))) return;
  if (isOwn(folder, 'isDirectory')) attempt(() => rmdirSync(folder));
}

/** A link is nothing of runlock's, nor is what can't be looked at. */
function isOwn(path: string, kind: 'isFile' | 'isDirectory'): boolean {
  try {
    return lstatSync(path)[kind]();
  } catch {
    return false;
  }
}

/** In order of their names. */
async function namesIn(folder: string): Promise<readonly string[]> {
  if (!isOwn(folder, 'isDirectory')) return [];
  return (await readdir(folder).catch(() => [])).sort();
}

function attempt(remove: () => void): void {
  try {
    remove();
  } catch {
    // Not empty, gone already, or a disk that takes no changes: the next look tries again.
  }
}
