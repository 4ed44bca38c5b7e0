/**
 * What an agent does about one request, by what one look at Consul, at this host and at its files shows (docs/protocol.md,
 * "Jobs"). It remembers nothing, so an agent that was restarted decides as the one before. Pure.
 */
import { NOT_BOOTED } from '../jobs/gone.ts';
import type { LedgerEnd } from '../jobs/ledger.ts';
import type { ServedEnd } from '../jobs/served.ts';
import type { LastEnd } from './runs.ts';
import type { TargetDocument } from '../jobs/documents.ts';
import type { Look } from '../jobs/read.ts';
import { isFinal } from '../jobs/records.ts';
import { delayOf, isPast, isUnderWay, whyNotStart } from '../jobs/stage.ts';
import type { SeenKey } from '../lock/transactions.ts';
import type { End, SeenTarget } from '../jobs/transactions.ts';
import { assertNever } from '../errors.ts';
import { isSameBoot } from '../platform/deps.ts';

export interface Shown {
  readonly look: Look;
  readonly host: HostShown;
  /** Why nothing may begin on this node now; undefined: it may. */
  readonly stop: 'paused' | 'unknown-rights' | undefined;
  /** Why this node's files refuse the request; undefined: they allow it. */
  readonly refusal: string | undefined;
  readonly nowMs: number;
}

/** What this host knows of the request. */
export interface HostShown {
  /** Whether a process that was started for it is alive. */
  readonly isExecAlive: boolean;
  /** Whether anything of the run in the target's document is alive. */
  readonly isRunAlive: boolean;
  /** What is on the disk; undefined: this host has not started it. */
  readonly started: Pick<LedgerEnd, 'state' | 'exitCode' | 'why'> | undefined;
  /** How the group's record says that the run in the target's document ended; undefined: it says nothing of it. */
  readonly recorded: RecordedEnd | undefined;
  /** What proves that the run's claim is gone, of a target that is rebooting; undefined: it may stand. */
  readonly rebootEnded: SeenKey | undefined;
  readonly bootId: string;
  /** Earliest moment of another try, after processes that ended without having started it; wall-clock milliseconds. */
  readonly notBeforeMs: number;
  /** How the last process that was started for it ended; undefined: it is alive, or there was none. */
  readonly lastEnd: LastEnd | undefined;
  /** The end that another run of the same task gives it, which began after it was asked for; undefined: none has. */
  readonly served: ServedEnd | undefined;
}

export type RecordedEnd = Pick<End, 'state' | 'exitCode' | 'endedAt'>;

export type Deed =
  /** Nothing is left to do for it. */
  | { readonly kind: 'drop'; readonly why: 'gone' | 'unmeant' | 'broken' | 'over' }
  | { readonly kind: 'refuse'; readonly why: string }
  | { readonly kind: 'accept' }
  | { readonly kind: 'start' }
  /** Its last process ended before its command began: others are to know why. */
  | { readonly kind: 'tell'; readonly why: string }
  | {
      readonly kind: 'end';
      readonly end: Omit<End, 'endedAt'> & Partial<Pick<End, 'endedAt'>>;
      /** Only while this is as it was seen. */
      readonly owner?: SeenKey;
    }
  /** Its host has booted since the run asked for that. */
  | { readonly kind: 'after-reboot' }
  | { readonly kind: 'wait'; readonly until: Awaited };

/** What to look again for. `atMs`: wall-clock milliseconds, at the latest. */
export type Awaited =
  | { readonly kind: 'exec' }
  /** Whatever is left of a run is being ended. */
  | { readonly kind: 'remains' }
  | { readonly kind: 'stage' | 'node'; readonly atMs: number };

export function decide({ look, ...shown }: Shown): Deed {
  switch (look.kind) {
    case 'gone':
    case 'unmeant':
    case 'broken':
      // Its process finds that out by itself.
      return shown.host.isExecAlive ? wait({ kind: 'exec' }) : { kind: 'drop', why: look.kind };
    case 'target':
      return decideTarget(look.target, shown);
    default:
      return assertNever(look);
  }
}

type Around = Omit<Shown, 'look'>;

function decideTarget(target: SeenTarget, shown: Around): Deed {
  const { document, stage } = target;
  const { host } = shown;
  if (document && isFinal(document.value.state)) return { kind: 'drop', why: 'over' };
  if (host.isExecAlive) return wait({ kind: 'exec' });
  if (document && isUnderWay(document.value)) return decideUnderWay(target, shown);
  if (stage.value.kind === 'stopped') return { kind: 'drop', why: 'over' };
  return decideOpen(target, shown);
}

/** The process that should have written its end is gone. */
function decideUnderWay(target: SeenTarget, around: Around): Deed {
  const { state } = target.document?.value ?? {};
  if (state === 'rebooting') return decideRebooting(target, around);
  const { host } = around;
  if (host.isRunAlive) return wait({ kind: 'remains' });
  if (host.recorded) return { kind: 'end', end: host.recorded };
  const { started } = host;
  // A run is good only if its group says so: it is one transaction.
  if (started && started.state !== 'good' && started.state !== 'rebooting')
    return { kind: 'end', end: { ...started, state: started.state } };
  const what =
    started === undefined
      ? 'its process is gone, and its end was not recorded'
      : `its command ended (${started.state}), and that could not be recorded in its group`;
  return { kind: 'end', end: { state: 'lost', why: what } };
}

const KILLED = 'its job was cancelled with --kill before its host had booted; its slot stays as it is';

/** A run that is over has asked for a reboot: nothing but this ends its target. */
function decideRebooting({ document, stage }: SeenTarget, { host, nowMs, stop }: Around): Deed {
  const hasBooted = !isSameBoot(document?.value.bootId ?? '', host.bootId);
  if (hasBooted && stop !== 'paused') return { kind: 'after-reboot' };
  if (stage.value.kind === 'stopped' && stage.value.kill)
    return { kind: 'end', end: { state: 'cancelled', why: KILLED } };
  const owner = host.rebootEnded;
  if (owner && !hasBooted) return { kind: 'end', end: { state: 'lost', why: NOT_BOOTED }, owner };
  return wait({ kind: 'stage', atMs: nowMs + LOOK_MS });
}

function decideOpen(target: SeenTarget, { host, stop, refusal, nowMs }: Around): Deed {
  const { document, stage, spec, targetStage, node } = target;
  const { until } = spec.value;
  // The store went back: this host has started it before.
  if (host.started) return { kind: 'end', end: startedBefore(host.started) };
  const atMs = Date.parse(until);
  // A job that is not ready is written by nobody but who starts it; who looks at it ends it when it is past its end.
  if (stage.value.kind === 'fill') return wait({ kind: 'stage', atMs: Math.max(atMs, nowMs + LOOK_MS) });
  if (isPast(until, nowMs))
    return { kind: 'end', end: { state: 'expired', why: `not started until ${until}` } };
  if (stop !== undefined) return wait({ kind: 'node', atMs });
  const why = refusal ?? (host.lastEnd?.isUnfit ? host.lastEnd.text : undefined);
  if (why !== undefined) return { kind: 'refuse', why };
  if (!document && stage.value.kind === 'open' && targetStage >= 0) return { kind: 'accept' };
  if (host.served) return { kind: 'end', end: host.served };
  const news = document && whyNotBegun(document.value, host.lastEnd);
  if (news !== undefined) return { kind: 'tell', why: news };
  const delayMs = delayOf(node, spec.value.splayMs);
  const notNow = whyNotStart(
    { stage: stage.value, targetStage, document: document?.value, until, delayMs },
    nowMs,
  );
  if (!notNow)
    return host.notBeforeMs > nowMs
      ? wait({ kind: 'stage', atMs: Math.min(atMs, host.notBeforeMs) })
      : { kind: 'start' };
  const leftMs = notNow.why === 'pause' ? notNow.leftMs : Infinity;
  return wait({ kind: 'stage', atMs: Math.min(atMs, nowMs + leftMs) });
}

/** Undefined: it is told already. Times and ages in it make no news, or each try would be a write. */
function whyNotBegun({ why = '' }: Pick<TargetDocument, 'why'>, last: LastEnd | undefined) {
  if (!last) return undefined;
  const now = `its last run ended before its command began: ${last.text}; it is tried again`;
  const words = (text: string) => text.replaceAll(/\d+/g, '');
  return words(why) === words(now) ? undefined : now;
}

/** A reboot that was asked for, in a store that has forgotten it, has no claim that could be released. */
function startedBefore({
  state,
  ...more
}: Pick<LedgerEnd, 'state' | 'exitCode' | 'why'>): Omit<End, 'endedAt'> {
  return state === 'rebooting'
    ? { state: 'lost', why: 'its host was rebooting, and its record in Consul is gone' }
    : { ...more, state };
}

/** Something that no key tells. */
const LOOK_MS = 60_000;

const wait = (until: Awaited): Deed => ({ kind: 'wait', until });
