/** `runlock exec`: waits for a slot in each group, runs the command in them, gives them back. */
import { basename } from 'node:path';
import { assertNever } from '../errors.ts';
import type { RunEvent } from '../events/events.ts';
import type { AcquireRequest } from '../lock/acquire.ts';
import type { Runner } from '../lock/records.ts';
import { spareGuard } from '../process/guard/guard.ts';
import type { Spare } from '../process/guard/guard.ts';
import { codeMeanings, signalCodes } from './outcome.ts';
import type { CodeMeanings } from './outcome.ts';
import { busyEvent, sentAwayEvent } from './busy.ts';
import { checkRun, launcherFor } from './preflight.ts';
import { placeOf } from './finish.ts';
import type { ExecDeps, ExecOptions, Figures, GroupChoice } from './options.ts';
import type { TakenBehind } from './acquire-gated.ts';
import { tellLeftOn } from './leftover-maintenance.ts';
import { NO_NOTE, notesFolder, openNote } from './run-note.ts';
import type { RunNote } from './run-note.ts';
import type { RunGate } from './gate-session.ts';
import { lostBeforeStart, takeSlots } from './slots.ts';
import type { HeldSlot, HeldSlots, Taken } from './slots.ts';
import { SILENCE_MS } from './start.ts';
import { superviseRun } from './supervise.ts';
import type { RunResult } from './supervise.ts';
import { startPatience } from './patience.ts';
import { watchWait } from './wait.ts';

export type ExecResult =
  | RunResult
  | { readonly kind: 'busy'; readonly figures: Figures }
  /** A signal ended the wait; nothing was started. */
  | { readonly kind: 'interrupted'; readonly signal: NodeJS.Signals; readonly figures: Figures }
  | { readonly kind: 'dry-run' };

/** @throws RunlockError before any slot is taken: wrong usage, no such command, no Consul, no rights. */
export async function exec(deps: ExecDeps, options: ExecOptions): Promise<ExecResult> {
  const file = checkRun(deps, options);
  const meanings = chosenMeanings(basename(options.command), options);
  const launcher = launcherFor(deps, options.command);
  const stop = new AbortController();
  let stoppedBy: NodeJS.Signals | undefined;
  deps.signals.listen((signal) => {
    stoppedBy ??= signal;
    stop.abort();
  });
  const waits = measureWaits(deps);
  const { id: run, nonce } = deps.run;
  const runner = { ...deps.host.self(), ...(await deps.host.place()) };
  const requests = toRequests(options, run, runner);
  const { cgroup, fileLimit } = deps.contained;
  const spare = spareGuard({
    nonce,
    cgroup,
    path: deps.env['PATH'],
    notes: notesFolder(deps),
    clock: deps.clock,
  });
  const note = options.dryRun ? NO_NOTE : openNote(deps, { run, nonce, groups: groupPaths(options) });
  try {
    if (options.gate) await loadGate();
    const splayMs = options.dryRun ? 0 : options.splayMs;
    await deps.clock.sleep(splayMs * deps.random(), { signal: stop.signal });
    const gate = await openGate(deps, options, { run, signal: stop.signal });
    const taken = await waitForSlots(deps, options, {
      requests,
      gate,
      waits,
      spare,
      note,
      signal: stop.signal,
    });
    switch (taken.kind) {
      case 'closed':
        deps.emit(await gateClosedEvent(taken, { group: groupNames(options), node: gate?.node ?? '', run }));
        return { kind: 'busy', figures: { outcome: 'busy', waitedMs: waits.read() } };
      case 'busy':
        deps.emit(
          busyEvent(taken.busy, { wait: options.dryRun ? 0 : options.wait, nowMs: deps.clock.now() }),
        );
        return { kind: 'busy', figures: { outcome: 'busy', waitedMs: waits.read() } };
      case 'sent-away':
        deps.emit(sentAwayEvent(taken.away));
        return { kind: 'lost', figures: { outcome: 'evicted', waitedMs: waits.read() } };
      case 'lost':
        return lostBeforeStart(deps, taken.slot, waits.read());
      case 'taken':
        break;
      default:
        return assertNever(taken);
    }
    if (options.dryRun) return await endDryRun(deps, taken.slots, options);
    tellLeftOn(deps, taken.slots, gate);
    return await superviseRun(deps, taken.slots, {
      ...options,
      file,
      meanings,
      nonce,
      cgroup,
      fileLimit,
      spare,
      note,
      runGate: gate,
      ...(launcher && { launcher }),
    });
  } catch (error) {
    if (stoppedBy === undefined || error !== stop.signal.reason) throw error;
    const figures: Figures = { outcome: 'interrupted', waitedMs: waits.read() };
    return { kind: 'interrupted', signal: stoppedBy, figures };
  } finally {
    await spare.dismiss();
    note.close();
  }
}

function chosenMeanings(name: string, { args, okCodes, rebootCodes }: ExecOptions): CodeMeanings {
  const known = codeMeanings(name, args);
  return { ok: okCodes ?? known.ok, reboot: rebootCodes ?? known.reboot, signals: signalCodes(name) };
}

interface Waits {
  /** From here on until `end` the group is waited for. */
  readonly begin: (group: string) => void;
  readonly end: (slot: HeldSlot) => void;
  /** By group, in milliseconds, so far. */
  readonly read: () => Figures['waitedMs'];
}

function measureWaits({ clock }: ExecDeps): Waits {
  const ended: Record<string, number> = {};
  const begun: Record<string, number> = {};
  return {
    begin: (group) => void (begun[group] = clock.monotonicMs()),
    end: ({ grant, waitedMs }) => void (ended[grant.context.keys.group] = waitedMs),
    read: () => {
      const nowMs = clock.monotonicMs();
      const soFar = Object.entries(begun).map(([group, sinceMs]) => [group, nowMs - sinceMs] as const);
      return { ...Object.fromEntries(soFar), ...ended };
    },
  };
}

/** All of it, before anything is waited for: by then the program's files may have been replaced. */
const loadGate = () =>
  Promise.all([import('./gate-session.ts'), import('./gate-events.ts'), import('./acquire-gated.ts')]);

/** Loaded where it is asked for alone. */
async function openGate(
  deps: ExecDeps,
  { gate, prefix, groups, node, dryRun }: ExecOptions,
  { run, signal }: { run: string; signal: AbortSignal },
): Promise<RunGate | undefined> {
  if (!gate) return undefined;
  const { openRunGate } = await import('./gate-session.ts');
  return openRunGate(deps, { prefix, groups, run, node, dryRun, gate }, signal);
}

const groupPaths = ({ prefix, groups }: ExecOptions) => groups.map(({ group }) => `${prefix}/${group}`);

const groupNames = ({ groups }: ExecOptions) => groups.map(({ group }) => group).join(',');

async function gateClosedEvent(
  { verdicts }: Extract<TakenBehind, { kind: 'closed' }>,
  who: { readonly group: string; readonly node: string; readonly run: string },
): Promise<RunEvent> {
  const { busyGateEvent } = await import('./gate-events.ts');
  return busyGateEvent(verdicts, who);
}

interface Slotless {
  readonly requests: Requests;
  readonly gate: RunGate | undefined;
  readonly waits: Waits;
  readonly spare: Spare;
  readonly note: RunNote;
  readonly signal: AbortSignal;
}

/** One patience for the gate and all groups together. */
async function waitForSlots(deps: ExecDeps, options: ExecOptions, it: Slotless): Promise<TakenBehind> {
  const { gate, requests, waits, signal } = it;
  const patience = startPatience(deps.clock, options.dryRun ? 0 : options.wait);
  const take = (during: AbortSignal) =>
    askForSlots(deps, options, { ...it, signal: during, patience: patience.signal });
  try {
    if (!gate) return await take(signal);
    for (const { group } of requests) waits.begin(group);
    const { takeBehindGate } = await import('./acquire-gated.ts');
    return await takeBehindGate(deps, gate, {
      run: requests[0].run.id,
      signal,
      patience: patience.signal,
      take,
    });
  } finally {
    patience.stop();
  }
}

async function askForSlots(
  deps: ExecDeps,
  options: ExecOptions,
  { requests, gate, waits, spare, note, signal, patience }: Slotless & { patience: AbortSignal },
): Promise<Taken> {
  const { dryRun, sessionTtlMs, killAfterMs } = options;
  const wait = dryRun ? 0 : options.wait;
  let soon: NodeJS.Immediate | undefined;
  /** What can be done before there is a slot need not be done after; first of all goes what asks for one. */
  const prepare = () => {
    clearImmediate(soon);
    soon = setImmediate(() => {
      spare.post(SILENCE_MS);
      note.starts(deps.contained.cgroup()?.path);
    });
  };
  const taking = takeSlots(deps, gate ? narrow(requests, gate) : requests, {
    signal,
    patience,
    ttlMs: sessionTtlMs,
    killAfterMs,
    onFirst: prepare,
    onNext: prepare,
    onAsked: ({ group, run: { id, slots } }, { held, over }) => {
      waits.begin(group);
      const tellWait = watchWait(deps, { group, run: id, slots, held }, over);
      return (_, seen) => {
        if (wait !== 0) tellWait(seen);
      };
    },
    onGranted: (slot) => {
      waits.end(slot);
      note.granted(slot.grant);
      if (!dryRun) emitGranted(deps, slot);
    },
  });
  return taking.finally(() => clearImmediate(soon));
}

/** A node that is healthy uses no more slots than its services can bear to be offline. */
function narrow(requests: Requests, gate: RunGate): Requests {
  const toNarrow = (request: AcquireRequest): AcquireRequest => ({
    ...request,
    run: { ...request.run, slots: gate.slots(request.run.slots) },
  });
  const [first, ...others] = requests;
  return [toNarrow(first), ...others.map(toNarrow)];
}

type Requests = Parameters<typeof takeSlots>[1];

/** One run, with one id, in all of its groups. */
function toRequests(options: ExecOptions, id: string, runner: Runner): Requests {
  const { prefix, groups, node, sessionTtlMs } = options;
  const command = basename(options.command);
  const run = { id, command, runner };
  const several = groups.length > 1 && { groups: groups.map(({ group }) => group) };
  const toRequest = ({ group, slots, hold, releaseOnSignal }: GroupChoice): AcquireRequest => ({
    prefix,
    group,
    ttlMs: sessionTtlMs,
    ...(node !== undefined && { node }),
    run: { ...run, hold, slots, ...several, ...(releaseOnSignal && { releaseOnSignal }) },
  });
  const [first, ...others] = groups;
  return [toRequest(first), ...others.map(toRequest)];
}

function emitGranted(deps: ExecDeps, { grant, waitedMs }: HeldSlot): void {
  const { fencingToken } = grant;
  deps.emit({ event: 'granted', ...placeOf(grant), fencingToken, waitedMs: Math.round(waitedMs) });
}

async function endDryRun(deps: ExecDeps, slots: HeldSlots, options: ExecOptions): Promise<ExecResult> {
  await Promise.all(slots.map(({ lease }) => lease.decline()));
  const words = [options.command, ...options.args];
  for (const { grant } of slots)
    deps.emit({ event: 'dry-run', ...placeOf(grant), detail: { before: grant.before?.state, words } });
  return { kind: 'dry-run' };
}
