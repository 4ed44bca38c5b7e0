/** What this host, and the group's record, know of a request's run. */
import type { Consul } from '../consul/consul.ts';
import { groupKeys } from '../lock/keys.ts';
import { decodeRun } from '../lock/records.ts';
import type { Outcome } from '../lock/records.ts';
import type { SeenKey } from '../lock/transactions.ts';
import type { FinalState, TargetDocument } from '../jobs/documents.ts';
import { rebootEnded } from '../jobs/gone.ts';
import { jobGroup } from '../jobs/keys.ts';
import type { JobRef } from '../jobs/keys.ts';
import { endInLedger, hasStarted, readLedger } from '../jobs/ledger.ts';
import { readRuns } from '../jobs/read-runs.ts';
import type { Look } from '../jobs/read.ts';
import { mayBeServed, servedBy } from '../jobs/served.ts';
import type { ServedEnd } from '../jobs/served.ts';
import type { SeenTarget } from '../jobs/transactions.ts';
import { isNobody } from '../platform/deps.ts';
import type { AgentWays } from './ways.ts';
import type { Runs } from './runs.ts';
import type { HostShown, RecordedEnd } from './serve.ts';
import { digestAsked } from './task/digest.ts';

export interface HostQuestion {
  readonly ways: AgentWays;
  readonly runs: Runs;
  readonly ref: JobRef;
}

export async function hostShown(
  { ways, runs, ref }: HostQuestion,
  look: Look,
  signal: AbortSignal,
): Promise<HostShown> {
  const { deps, consul, prefix, node, state } = ways;
  const { host, emit } = deps;
  const isExecAlive = runs.isAlive(ref);
  const nothing = {
    isExecAlive,
    isRunAlive: false,
    started: undefined,
    recorded: undefined,
    rebootEnded: undefined,
    lastEnd: undefined,
    served: undefined,
  };
  if (look.kind !== 'target') return { ...nothing, bootId: host.bootId, notBeforeMs: 0 };
  const { spec, document } = look.target;
  const ledger = readLedger(state.path, ref, node);
  const { nonce, home, task, noop } = spec.value;
  const group = noop ? jobGroup(home, ref) : home;
  const run = document?.value.state === 'running' ? document.value.run : undefined;
  const isGone = run !== undefined && !isExecAlive;
  return {
    isExecAlive,
    isRunAlive: isGone && !isNobody(host.survivors(run, emit)),
    started: hasStarted(ledger, nonce) ? endInLedger(ledger) : undefined,
    recorded: isGone ? await recordedEnd({ consul, prefix, group, node }, run, signal) : undefined,
    rebootEnded: document && (await whyRebootEnded({ consul, prefix, group, node }, document.value, signal)),
    bootId: host.bootId,
    notBeforeMs: runs.notBeforeMs(ref, nonce),
    lastEnd: runs.lastEnd({ ref, nonce, task }),
    served: isExecAlive ? undefined : await served(ways, look.target, signal),
  };
}

/** Read only where a run would start now. */
async function served(
  { consul, prefix, known, posting: { uid }, deps: { clock } }: AgentWays,
  target: SeenTarget,
  signal: AbortSignal,
): Promise<ServedEnd | undefined> {
  const { task: name, params } = target.spec.value;
  const found = known.look().value.files.tasks.find(({ task }) => task.name === name);
  const digest = found && digestAsked(found.task, params, uid);
  if (!found || digest === undefined || !mayBeServed(target, clock.now())) return undefined;
  const { groups } = found.shown;
  const runs = await readRuns({ consul, prefix, groups, node: target.node }, { signal });
  return servedBy(target, { runs, digest, nowMs: clock.now() });
}

interface Recorded {
  readonly consul: Consul;
  readonly prefix: string;
  /** Where the run is recorded. */
  readonly group: string;
  readonly node: string;
}

async function whyRebootEnded(
  { consul, prefix, group, node }: Recorded,
  { run, ...document }: TargetDocument,
  signal: AbortSignal,
): Promise<SeenKey | undefined> {
  if (document.state !== 'rebooting' || run === undefined) return undefined;
  const keys = groupKeys(prefix, group);
  const { entry } = await consul.get(keys.run(node), { signal, rule: keys.rule });
  const { entries } = await consul.list(keys.slotPrefix, { signal, rule: keys.rule });
  return rebootEnded({ ...document, run }, node, { keys, entries: entry ? [...entries, entry] : entries });
}

async function recordedEnd(
  { consul, prefix, group, node }: Recorded,
  run: string,
  signal: AbortSignal,
): Promise<RecordedEnd | undefined> {
  const keys = groupKeys(prefix, group);
  const { entry } = await consul.get(keys.run(node), { signal, rule: keys.rule });
  if (!entry) return undefined;
  const record = decodeRun(entry);
  if (record.run !== run) return undefined;
  const state = STATES[record.outcome];
  if (state === undefined) return undefined;
  const { exitCode, endedAt } = record;
  return { state, endedAt, ...(exitCode !== undefined && { exitCode }) };
}

/** `rebooting` is no end. */
const STATES: Readonly<Record<Outcome, FinalState | undefined>> = {
  succeeded: 'good',
  failed: 'failed',
  unhealthy: 'unhealthy',
  'timed-out': 'timed-out',
  interrupted: 'failed',
  evicted: 'failed',
  lost: 'lost',
  rebooting: undefined,
};
