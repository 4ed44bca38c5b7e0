/** `runlock exec`: waits for a slot, runs the command in it, gives the slot back. */
import { basename } from 'node:path';
import { findCommand, prepareStart } from '../child.ts';
import { RunlockError } from '../errors.ts';
import { acquire } from '../lock/acquire.ts';
import type { Acquired, AcquireRequest } from '../lock/acquire.ts';
import { decline } from '../lock/grant.ts';
import type { Grant } from '../lock/grant.ts';
import { deadAfterMs } from '../lock/lease.ts';
import { codeMeanings } from '../tools.ts';
import type { CodeMeanings } from '../tools.ts';
import { formatAge } from '../output.ts';
import { describeBusy } from './busy.ts';
import { placeOf } from './end.ts';
import type { ExecDeps, ExecOptions, Figures } from './exec-deps.ts';
import { superviseRun } from './supervise.ts';
import type { RunResult } from './supervise.ts';
import { watchQueue } from './waiting-line.ts';
import { watchWait } from './waits.ts';

export type ExecResult =
  | RunResult
  | { readonly kind: 'busy'; readonly figures: Figures }
  /** A signal ended the wait; nothing was started. */
  | { readonly kind: 'interrupted'; readonly signal: NodeJS.Signals; readonly figures: Figures }
  | { readonly kind: 'dry-run' };

/** @throws RunlockError before any slot is taken: wrong usage, no such command, no Consul, no rights. */
export async function exec(deps: ExecDeps, options: ExecOptions): Promise<ExecResult> {
  checkDeadline(options);
  const file = findCommand(options.command, { path: deps.env['PATH'] });
  const name = basename(options.command);
  const meanings = chosenMeanings(name, options);
  const request: AcquireRequest = {
    prefix: options.prefix,
    group: options.group,
    ...(options.node !== undefined && { node: options.node }),
    run: {
      id: deps.newRunId(),
      command: name,
      runner: deps.host.self(),
      hold: options.hold,
      slots: options.slots,
    },
    ttlMs: options.sessionTtlMs,
  };
  const stop = new AbortController();
  let stoppedBy: NodeJS.Signals | undefined;
  deps.signals.listen((signal) => {
    stoppedBy ??= signal;
    stop.abort();
  });
  let startedMs = deps.clock.monotonicMs();
  const waited = () => deps.clock.monotonicMs() - startedMs;
  try {
    const splayMs = options.dryRun ? 0 : options.splayMs;
    await deps.clock.sleep(splayMs * deps.random(), { signal: stop.signal });
    startedMs = deps.clock.monotonicMs();
    const acquired = await waitForSlot(deps, options, { request, signal: stop.signal });
    if (acquired.kind === 'busy') {
      const wait = options.dryRun ? 0 : options.wait;
      const { level, message } = describeBusy(acquired, { wait, nowMs: deps.clock.now() });
      const { node, id } = acquired.context.run;
      const who = { group: options.group, node, run: id };
      deps.log(level, message, { event: 'busy', ...who, why: acquired.why.kind });
      return { kind: 'busy', figures: { outcome: 'busy', waitedMs: waited() } };
    }
    const waitedMs = waited();
    if (options.dryRun || stop.signal.aborted) {
      await decline(acquired.grant);
      stop.signal.throwIfAborted();
      deps.log('warning', sayDryRun(acquired.grant, options), {
        event: 'dry-run',
        ...placeOf(acquired.grant),
      });
      return { kind: 'dry-run' };
    }
    sayGranted(deps, acquired.grant, waitedMs);
    return await superviseRun(deps, acquired.grant, { ...options, file, meanings, waitedMs });
  } catch (error) {
    if (stoppedBy !== undefined && error === stop.signal.reason)
      return {
        ...{ kind: 'interrupted', signal: stoppedBy },
        figures: { outcome: 'interrupted', waitedMs: waited() },
      };
    throw error;
  }
}

/** With a hold that ends, a run that is cut off must be dead in time, after at least two renewals were missed. */
function checkDeadline({ hold, killAfterMs, sessionTtlMs }: ExecOptions): void {
  const leftMs = deadAfterMs(hold) - killAfterMs;
  const needMs = (2 * sessionTtlMs) / 3;
  if (leftMs >= needMs) return;
  const sum = `--hold ${hold === 'none' ? 'none' : formatAge(Number(hold))}, --kill-after ${formatAge(killAfterMs)} and --session-ttl ${formatAge(sessionTtlMs)}`;
  throw new RunlockError(
    'usage',
    `${sum} leave no time for two missed renewals before the run must be dead; shorten --kill-after or --session-ttl, or lengthen --hold`,
  );
}

function chosenMeanings(name: string, { args, okCodes, rebootCodes }: ExecOptions): CodeMeanings {
  const known = codeMeanings(name, args);
  return { ok: okCodes ?? known.ok, reboot: rebootCodes ?? known.reboot };
}

async function waitForSlot(
  deps: ExecDeps,
  { wait, group, prefix, dryRun }: ExecOptions,
  { request, signal }: { request: AcquireRequest; signal: AbortSignal },
): Promise<Acquired> {
  const patience = new AbortController();
  const done = new AbortController();
  const limitMs = dryRun ? 0 : wait;
  if (limitMs === 0) patience.abort();
  else if (limitMs !== 'forever') {
    void deps.clock.sleep(limitMs, { signal: done.signal }).then(
      () => patience.abort(),
      () => undefined,
    );
  }
  const line =
    deps.terminal && limitMs !== 0 ? watchQueue(deps, { group, prefix, terminal: deps.terminal }) : undefined;
  const sayWait = watchWait(deps, { group, run: request.run.id, slots: request.run.slots }, done.signal);
  const waiting = { signal, patience: patience.signal, either: AbortSignal.any([signal, patience.signal]) };
  try {
    return await acquire({ consul: deps.consul, deps }, request, {
      ...waiting,
      onJoined: (session, seen) => {
        line?.joined(session);
        if (limitMs !== 0) sayWait(seen);
        prepareSoon(deps, done.signal);
      },
    });
  } finally {
    done.abort();
    await line?.close();
  }
}

/** By then Consul has been asked for the slot, or for the change to wait for, and has not answered yet. */
const ASKED_MS = 1;

function prepareSoon({ clock }: ExecDeps, signal: AbortSignal): void {
  // What can't be loaded is said when it is needed.
  void clock
    .sleep(ASKED_MS, { signal })
    .then(prepareStart)
    .catch(() => undefined);
}

function sayGranted(deps: ExecDeps, grant: Grant, waitedMs: number): void {
  const { group, node, slot } = placeOf(grant);
  deps.log('info', `${node} got slot ${slot} of ${group} after ${formatAge(waitedMs)}`, {
    event: 'granted',
    ...placeOf(grant),
    fencingToken: grant.fencingToken,
    waitedMs: Math.round(waitedMs),
  });
}

function sayDryRun({ context, slot, before }: Grant, { command, args }: ExecOptions): string {
  const back = before ? `, taking back its ${before.state} claim` : '';
  const line = [command, ...args]
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word)))
    .join(' ');
  return `dry run: ${context.run.node} would run in slot ${slot} of ${context.keys.group} at once${back}: ${line}`;
}
