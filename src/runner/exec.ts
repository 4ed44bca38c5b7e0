/** `runlock exec`: waits for a slot in each group, runs the command while it holds them, then releases them. */
import { basename } from 'node:path';
import { RunlockError, assertNever } from '../errors.ts';
import type { Emit } from '../events/events.ts';
import { isOfJob } from '../lock/keys.ts';
import type { AcquireRequest } from '../lock/acquire.ts';
import type { Runner } from '../lock/records.ts';
import { startWaiting } from '../platform/deps.ts';
import type { Waiting } from '../platform/deps.ts';
import { spareGuard } from '../process/guard/guard.ts';
import type { Spare } from '../process/guard/guard.ts';
import type { Gated } from './gated.ts';
import { loadNeeded } from './needed.ts';
import type { Parted, loadOutside } from './needed.ts';
import type { ExecDeps, ExecOptions, Figures, GroupChoice } from './options.ts';
import type { Leaving, Part } from './part.ts';
import { codeMeanings, signalCodes } from './outcome.ts';
import type { CodeMeanings } from './outcome.ts';
import { checkRun, launcherFor } from './preflight.ts';
import { busyEvent, leftOnEvent, placeOf, sentAwayEvent } from './run-events.ts';
import { NO_NOTE, notesFolder, openNote } from './run-note.ts';
import type { RunNote } from './run-note.ts';
import { declineAll, grantsOf, lostBeforeStart, takeSlots } from './slots.ts';
import type { HeldSlots } from './slots.ts';
import { SILENCE_MS } from './start.ts';
import { superviseRun } from './supervise.ts';
import type { RunResult } from './supervise.ts';
import type { Entered, StartRun } from './outside.ts';
import type { WaitRecord } from './outside-record.ts';
import type { LogOutput, openLogOutput as OpenLogOutput } from './log-output.ts';
import { toTurn } from './turn.ts';
import type { OwnTurn } from './turn.ts';
import { toAll, waitSplay } from './wait.ts';

export type ExecResult =
  | RunResult
  | { readonly kind: 'busy'; readonly figures: Figures }
  /** A signal ended the wait; nothing was started. */
  | { readonly kind: 'interrupted'; readonly signal: NodeJS.Signals; readonly figures: Figures }
  /** What the run was for does not want it any more; nothing was started. */
  | { readonly kind: 'left'; readonly figures: Figures }
  | { readonly kind: 'dry-run' };

/** @throws RunlockError before any slot is taken: wrong usage, no such command, no Consul, no rights. */
export async function exec(deps: ExecDeps, options: ExecOptions): Promise<ExecResult> {
  const file = checkRun(deps, options);
  const meanings = chosenMeanings(basename(options.command), options);
  const launcher = launcherFor(deps, options.command);
  const stop = new AbortController();
  let halted: Halted | undefined;
  const halt = (by: Halted) => {
    halted ??= by;
    stop.abort();
  };
  deps.signals.listen((signal) => halt({ kind: 'interrupted', signal }));
  const killed = new AbortController();
  const ended = new AbortController();
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
  const turn = options.dryRun ? undefined : toTurn(deps, options, runner);
  let record: WaitRecord | undefined;
  let output: LogOutput | undefined;
  const leave = ({ why }: Leaving): ExecResult => {
    deps.emit({ event: 'left', run, group: groupNames(options), why });
    return { kind: 'left', figures: { outcome: 'interrupted', waitedMs: waits.read() } };
  };
  try {
    const { openGated, outside, parted, keys, openLogOutput } = await loadNeeded(deps, options);
    output =
      openLogOutput && (await openOutput(deps, options, { open: openLogOutput, parts: parted?.parts ?? [] }));
    for (const part of parted?.parts ?? []) {
      const left = await part.check?.(stop.signal);
      if (left) return leave(left);
    }
    for (const part of parted?.parts ?? [])
      part.follow?.({
        signal: ended.signal,
        leave: (why) => halt({ kind: 'left', why }),
        kill: (cause) => killed.abort(cause),
      });
    await waitSplay(deps, options.dryRun ? 0 : options.splayMs, stop.signal);
    const { gate, prefix, node, dryRun } = options;
    const groups = options.groups.filter(({ group }) => !isOfJob(group));
    const gated = gate && (await openGated?.(deps, { prefix, groups, run, node, dryRun, gate }, stop.signal));
    const heard = hearWait(deps, { waits, spare, note, dryRun });
    const hearing = { ...deps, emit: heard.emit };
    record = outside?.recordWaits(deps, toRecord(options, run, gated?.gate.services));
    const taken = await waitForSlots(hearing, options, {
      requests,
      gated,
      turn,
      outside: outside && record && { ...outside, record },
      parted,
      heard,
      signal: stop.signal,
    });
    switch (taken.kind) {
      case 'closed':
        if (gated && taken.verdicts.some(({ open }) => !open))
          deps.emit(gated.busyEvent(taken.verdicts, groupNames(options)));
        if (taken.missing.length > 0)
          deps.emit({ event: 'when-unmet', run, group: groupNames(options), missing: taken.missing });
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
      case 'left':
        return leave(taken);
      case 'taken':
        break;
      default:
        return assertNever(taken);
    }
    if (options.dryRun) return await endDryRun(deps, taken.slots, options);
    const leftOn = leftOnEvent(grantsOf(taken.slots), gated?.gate);
    if (leftOn) deps.emit(leftOn);
    deps.terminal?.handOver();
    return await superviseRun(deps, taken.slots, {
      ...withTimeout(options, parted?.parts ?? []),
      file,
      meanings,
      nonce,
      cgroup,
      fileLimit,
      spare,
      note,
      gated,
      begun: taken.begun,
      parted,
      killed: killed.signal,
      keys,
      output,
      ...(launcher && { launcher }),
    });
  } catch (error) {
    if (!halted || error !== stop.signal.reason) throw error;
    if (halted.kind === 'left') return leave(halted);
    return { ...halted, figures: { outcome: 'interrupted', waitedMs: waits.read() } };
  } finally {
    ended.abort();
    turn?.leave();
    await Promise.all([spare.dismiss(), record?.gone(), turn?.gone(), output?.end(Promise.resolve())]);
    note.close();
  }
}

/** What ends a wait from outside. */
type Halted = { readonly kind: 'interrupted'; readonly signal: NodeJS.Signals } | Leaving;

/** The shortest limit counts. */
function withTimeout(options: ExecOptions, parts: readonly Part[]): ExecOptions {
  const limits = [options.timeoutMs, ...parts.map((part) => part.timeoutMs?.())].filter(
    (limit) => limit !== undefined,
  );
  return limits.length === 0 ? options : { ...options, timeoutMs: Math.min(...limits) };
}

function chosenMeanings(name: string, { args, okCodes, rebootCodes }: ExecOptions): CodeMeanings {
  const known = codeMeanings(name, args);
  return { ok: okCodes ?? known.ok, reboot: rebootCodes ?? known.reboot, signals: signalCodes(name) };
}

interface Waits {
  /** The wait for the group starts here and lasts until `end`. */
  readonly begin: (group: string) => void;
  readonly end: (group: string) => void;
  /** Time waited so far, in milliseconds by group. */
  readonly read: () => Figures['waitedMs'];
}

function measureWaits({ clock }: ExecDeps): Waits {
  const ended: Record<string, number> = {};
  const begun: Record<string, number> = {};
  const sinceMs = (group: string) => clock.monotonicMs() - (begun[group] ?? clock.monotonicMs());
  return {
    begin: (group) => void (begun[group] = clock.monotonicMs()),
    end: (group) => void (ended[group] = sinceMs(group)),
    read: () => ({
      ...Object.fromEntries(Object.keys(begun).map((group) => [group, sinceMs(group)])),
      ...ended,
    }),
  };
}

interface Heard {
  readonly waits: Waits;
  /** Sends each event of the wait to the log first, then to the other listeners. */
  readonly emit: Emit;
  /** Cancels a preparation that has not begun. */
  readonly rest: () => void;
}

/** Measures the wait, notes each grant, and prepares whatever the start can have ready before there is a slot. */
function hearWait(
  deps: ExecDeps,
  { waits, spare, note, dryRun }: { waits: Waits; spare: Spare; note: RunNote; dryRun: boolean },
): Heard {
  let soon: NodeJS.Immediate | undefined;
  /** Deferred, so that the request for the slot goes out first. */
  const prepare = () => {
    clearImmediate(soon);
    soon = setImmediate(() => {
      spare.post(SILENCE_MS);
      note.starts(deps.contained.cgroup()?.path);
    });
  };
  const hear: Emit = (event) => {
    if (event.event === 'asking') waits.begin(event.group);
    else if (event.event === 'near' || event.event === 'first') prepare();
    else if (event.event === 'granted') {
      waits.end(event.group);
      note.granted(event.node);
    }
  };
  // A dry run does not log a grant, because it releases the slot at once.
  const log: Emit = (event) => {
    if (!dryRun || event.event !== 'granted') deps.emit(event);
  };
  return { waits, emit: toAll(log, [hear]), rest: () => clearImmediate(soon) };
}

const groupPaths = ({ prefix, groups }: ExecOptions) => groups.map(({ group }) => `${prefix}/${group}`);

const groupNames = ({ groups }: ExecOptions) => groups.map(({ group }) => group).join(',');

/** What others see of the run while it waits outside. */
function toRecord(options: ExecOptions, run: string, services: readonly string[] | undefined) {
  const { prefix, groups, node, sessionTtlMs, command, when = [], publish, during, gate } = options;
  const names = groups.map(({ group }) => group);
  const named = gate && services && { ...gate, services };
  return { prefix, groups: names, node, run, sessionTtlMs, command, when, publish, during, gate: named };
}

function openOutput(
  { emit, uid, run: { id: run } }: ExecDeps,
  { logFile: file = '' }: ExecOptions,
  { open, parts }: { readonly open: typeof OpenLogOutput; readonly parts: readonly Part[] },
): Promise<LogOutput> {
  return open({
    file,
    uid,
    lost: (why) => emit({ event: 'output-lost', run, file, why }),
    onLine: (line) => parts.forEach((part) => part.hearLine?.(line)),
  });
}

interface Slotless {
  readonly requests: Requests;
  /** Undefined: the run takes none. */
  readonly turn: OwnTurn | undefined;
  readonly gated: Gated | undefined;
  /** Undefined: the run has neither a gate nor conditions. */
  readonly outside: (Awaited<ReturnType<typeof loadOutside>> & { readonly record: WaitRecord }) | undefined;
  readonly parted: Parted | undefined;
  readonly heard: Heard;
  readonly signal: AbortSignal;
}

/** The conditions, the gate and all groups share one wait. */
async function waitForSlots(
  deps: ExecDeps,
  options: ExecOptions,
  { requests: plain, gated, turn, outside, parted, heard, signal }: Slotless,
): Promise<Entered> {
  const { prefix, dryRun, wait, sessionTtlMs: ttlMs, killAfterMs, when = [] } = options;
  const limit = dryRun ? 0 : wait;
  const requests = turn ? mapRequests(plain, (request) => ({ ...request, turn })) : plain;
  const waiting = startWaiting(deps.clock, limit, signal);
  const gate = gated?.gate;
  const take = (limited: Waiting) =>
    takeSlots(deps, gate ? narrow(requests, gate) : requests, {
      waiting: limited,
      ttlMs,
      killAfterMs,
      says: limit !== 0,
    }).finally(heard.rest);
  const starts = dryRun ? undefined : parted && startsWith(deps, { ...parted, gate, signal });
  try {
    if (outside) {
      const run = requests[0].run.id;
      const groups = requests.map(({ group }) => group);
      for (const group of groups) heard.waits.begin(group);
      const seats = requests.map(({ group, run: { slots } }) => ({ group, slots }));
      const about = { prefix, seats, node: options.node, run, when, inside: deps.inside };
      const conditions = outside.runConditions?.(deps, about);
      const { record } = outside;
      const leaveTurn = () => turn?.leave();
      const from = {
        run,
        group: groups.join(','),
        gate,
        conditions,
        record,
        waiting,
        take,
        starts,
        leaveTurn,
      };
      return await outside.enterFromOutside(deps, from);
    }
    const taken = await take(waiting);
    if (taken.kind !== 'taken' || !starts) return taken;
    const started = await starts(taken.slots, []);
    if (started.kind === 'changed')
      throw new RunlockError('bug', 'a start without conditions was refused for one; please report this');
    return started;
  } finally {
    waiting.end();
  }
}

interface Starting extends Pick<Parted, 'begin' | 'parts'> {
  readonly gate: Gated['gate'] | undefined;
  readonly signal: AbortSignal;
}

/** Gives up all slots unless the run may start its command. Undefined: nothing has to be proved or written then. */
function startsWith(deps: ExecDeps, { begin, parts, gate, signal }: Starting): StartRun | undefined {
  const starts = parts.flatMap(({ start }) => start ?? []);
  if (starts.length === 0) return undefined;
  return async (slots, conditions) => {
    const giveUp = async () => {
      await gate?.backOut();
      await declineAll(deps, slots);
    };
    const beginning = await begin(deps, slots, {
      parts: starts.map((start) => start(slots, conditions)),
      signal,
      giveUp,
    });
    return beginning.kind === 'begun' ? { kind: 'taken', slots, begun: beginning.begun } : beginning;
  };
}

/** Limits a healthy node to as many slots as its services can bear nodes offline. */
function narrow(requests: Requests, gate: Gated['gate']): Requests {
  return mapRequests(requests, (request) => ({
    ...request,
    run: {
      ...request.run,
      slots: isOfJob(request.group) ? request.run.slots : gate.slots(request.run.slots),
    },
  }));
}

const mapRequests = (
  [first, ...others]: Requests,
  change: (request: AcquireRequest) => AcquireRequest,
): Requests => [change(first), ...others.map(change)];

type Requests = Parameters<typeof takeSlots>[1];

const publishedPaths = ({ publish = [], during = [] }: ExecOptions) => [
  ...new Set([...publish, ...during].map(({ path }) => path)),
];

/** One run, with one id, in all of its groups. */
function toRequests(options: ExecOptions, id: string, runner: Runner): Requests {
  const { prefix, groups, node, sessionTtlMs, dryRun, task } = options;
  const command = basename(options.command);
  const publish = dryRun ? [] : publishedPaths(options);
  const run = { id, command, runner, ...(publish.length > 0 && { publish }), ...(task && { task }) };
  const own = groups.map(({ group }) => group).filter((group) => !isOfJob(group));
  const several = own.length > 1 && { groups: own };
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

async function endDryRun(deps: ExecDeps, slots: HeldSlots, options: ExecOptions): Promise<ExecResult> {
  await Promise.all(slots.map(({ lease }) => lease.decline()));
  const words = [options.command, ...options.args];
  for (const { grant } of slots)
    deps.emit({ event: 'dry-run', ...placeOf(grant), detail: { before: grant.before?.state, words } });
  return { kind: 'dry-run' };
}
