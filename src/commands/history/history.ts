/** Each node's last run, and how long ago its last successful run was. Changes nothing, except with `forget`. */
import { FIRST_CONTACT } from '../../consul/consul.ts';
import type { Consul, Entry } from '../../consul/consul.ts';
import { isRunlockError } from '../../errors.ts';
import type { RunlockError } from '../../errors.ts';
import { groupKeys, parseKey } from '../../lock/keys.ts';
import { isName } from '../../text/words.ts';
import { removeSeen } from '../../lock/transactions.ts';
import { send } from '../../consul/txn.ts';
import { findHidden, proveTrees } from '../../view/sources.ts';
import { viewRun } from '../../view/last-run.ts';
import type { RunView } from '../../view/last-run.ts';
import type { ForgetReport, HistoryReport } from '../../output/history.ts';

/** What the command line asks for. */
export interface HistoryRequest {
  /** Without slashes at its ends. */
  readonly prefix: string;
  /** Includes the groups below it, except with `forget`. Undefined: all groups below the prefix. */
  readonly group?: string;
  /** Only nodes without a successful run for this long, in milliseconds. */
  readonly silentForMs?: number;
  /** The node whose record is deleted. */
  readonly forget?: string;
  readonly json: boolean;
}

type Scope = Pick<HistoryRequest, 'prefix' | 'group'>;

/** @throws RunlockError if Consul can't be reached, or denies access. */
export async function history(
  consul: Consul,
  { now, signal, ...request }: HistoryRequest & { readonly now: number; readonly signal: AbortSignal },
): Promise<HistoryReport> {
  // `--silent-for` judges all nodes, so refuse if the token may not see some.
  if (request.silentForMs !== undefined) await proveTrees(consul, treeOf(request), signal);
  const [runs, hidden] = await Promise.all([
    readRuns(consul, request, signal),
    hiddenFrom(consul, request, signal),
  ]);
  return { ...viewHistory(runs, { ...request, now }), ...hidden };
}

/** What a listing silently omits. */
async function hiddenFrom(
  consul: Consul,
  scope: Scope,
  signal: AbortSignal,
): Promise<Pick<HistoryReport, 'hidden'>> {
  const hidden = await findHidden(consul, treeOf(scope), signal);
  return hidden === undefined ? {} : { hidden };
}

const treeOf = ({ prefix, group }: Scope) => ({ prefix, groups: group === undefined ? [] : [group] });

interface StoredRun {
  readonly group: string;
  readonly node: string;
  readonly entry: Entry;
}

async function readRuns(consul: Consul, scope: Scope, signal: AbortSignal): Promise<StoredRun[]> {
  const { prefix, group } = scope;
  const below = group === undefined ? `${prefix}/` : groupKeys(prefix, group).prefix;
  const options = { signal, ...FIRST_CONTACT, rule: ruleFor(scope, 'read') };
  // A listing hides keys that the token may not read, but reading a single key is refused. A group below may be readable.
  const refused =
    group === undefined ? undefined : await refusalOf(consul, groupKeys(prefix, group).tail, options);
  const { entries } = await consul.list(below, options);
  const runs = entries.flatMap((entry) => {
    const parsed = parseKey(prefix, entry.key);
    if (parsed?.key.kind !== 'run' || !isName(parsed.key.node)) return [];
    // Ignore keys that runlock does not write.
    if (!parsed.group.split('/').every(isName)) return [];
    return [{ group: parsed.group, node: parsed.key.node, entry }];
  });
  if (refused && runs.length === 0) throw refused;
  return runs;
}

/** Undefined: the key may be read. */
async function refusalOf(
  consul: Consul,
  key: string,
  options: Parameters<Consul['get']>[1],
): Promise<RunlockError | undefined> {
  try {
    await consul.get(key, options);
    return undefined;
  } catch (error) {
    if (isRunlockError(error, 'forbidden')) return error;
    throw error;
  }
}

function ruleFor({ prefix, group }: Scope, policy: 'read' | 'write'): string {
  const below = group === undefined ? `${prefix}/` : groupKeys(prefix, group).prefix;
  return `key_prefix "${below}" { policy = "${policy}" }`;
}

/** Builds the report from what is stored. Pure. */
export function viewHistory(
  stored: readonly StoredRun[],
  { prefix, group, silentForMs, now }: Omit<HistoryRequest, 'json' | 'forget'> & { readonly now: number },
): HistoryReport {
  const problems: string[] = [];
  const all = stored.flatMap((run) => readRun(run, problems)).sort(longestSilentFirst);
  const isSilent = ({ lastGoodAt }: RunView) =>
    silentForMs === undefined || lastGoodAt === undefined || now - Date.parse(lastGoodAt) >= silentForMs;
  return {
    v: 1,
    prefix,
    ...(group !== undefined && { group }),
    at: new Date(now).toISOString(),
    ...(silentForMs !== undefined && { silentForMs }),
    known: all.length,
    nodes: all.filter(isSilent),
    problems,
  };
}

/** An unreadable record becomes a problem in the report, and does not fail the report. */
function readRun({ group, entry }: StoredRun, problems: string[]): RunView[] {
  try {
    return [viewRun(group, entry)];
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    problems.push(error.message);
    return [];
  }
}

/** Sorts nodes by last successful run, those without one first; ties by last run, then by name. */
function longestSilentFirst(a: RunView, b: RunView): number {
  const times = (run: RunView) => [run.lastGoodAt, run.endedAt].map((at) => Date.parse(at ?? '') || 0);
  const [goodA = 0, endA = 0] = times(a);
  const [goodB = 0, endB = 0] = times(b);
  return goodA - goodB || endA - endB || compare(a.group, b.group) || compare(a.node, b.node);
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

/** Give up after so many tries: a node whose record changes that often is still running. */
const TRIES = 3;

/** Deletes the record of the node's last run, in the group (not in groups below it) or in all groups. */
export async function forget(
  consul: Consul,
  request: Scope & { readonly node: string },
  signal: AbortSignal,
): Promise<ForgetReport> {
  const { prefix, group, node } = request;
  const forgotten: string[] = [];
  let below: string[] = [];
  const options = { signal, rule: ruleFor(request, 'write') };
  const hidden = await hiddenFrom(consul, request, signal);
  for (let tries = 0; tries < TRIES; tries++) {
    const known = (await readRuns(consul, request, signal)).filter((run) => run.node === node);
    const own = known.filter((run) => group === undefined || run.group === group);
    below = known.filter((run) => !own.includes(run)).map((run) => run.group);
    let changed = false;
    for (const { group: at, entry } of own) {
      const result = await send(consul, removeSeen(entry.key, entry.modifyIndex, 'node'), options);
      if (result.kind === 'done') forgotten.push(at);
      else changed = true;
    }
    if (!changed) break;
  }
  return {
    v: 1,
    prefix,
    ...(group !== undefined && { group }),
    node,
    forgotten: forgotten.sort(),
    ...(below.length > 0 && { below: below.sort() }),
    ...hidden,
  };
}
