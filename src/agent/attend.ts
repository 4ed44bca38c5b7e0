/** One request on this node, from its pointer to the end: looks, decides (`serve`), acts, and waits for what may change. */
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { lookPast } from '../consul/watch.ts';
import { assertNever, isRunlockError, reasonOf } from '../errors.ts';
import { acceptTarget, dropPointer, endTarget, noteTarget, stopJob } from '../jobs/end.ts';
import type { OfTarget } from '../jobs/end.ts';
import { jobGroup, jobKeys, jobText } from '../jobs/keys.ts';
import { lookAt } from '../jobs/read.ts';
import type { Known as KnownJob, Look } from '../jobs/read.ts';
import type { End, SeenTarget } from '../jobs/transactions.ts';
import { endAfterReboot } from './after-reboot.ts';
import { askRights } from './rights.ts';
import type { AgentWays } from './ways.ts';
import { hostShown } from './host-shown.ts';
import type { OpenRequest } from './inbox.ts';
import type { Places } from './places.ts';
import type { Known } from './known.ts';
import { MOST_OPEN, whyRefused } from './refusal.ts';
import type { Runs } from './runs.ts';
import { decide } from './serve.ts';
import type { Awaited, Deed, Shown } from './serve.ts';
import { spreadMs } from './spread.ts';
import type { Watched } from './watched.ts';

export interface Attended extends OpenRequest {
  /** How many of the same principal came before it, and are open. */
  readonly older: number;
}

export interface Attending {
  readonly ways: AgentWays;
  readonly runs: Runs;
  /** The request; a change: it is to be looked at again. */
  readonly request: Watched<Attended>;
  /** Allows one more watch of a stage, if there are not too many. */
  readonly watches: Pick<Places, 'take' | 'give'>;
  /** Bounds how many ask Consul at the same time. */
  readonly looks: Pick<Places, 'inside'>;
  /** It could be read. */
  readonly read: () => void;
  /** It can't be read, and is left alone. `why`: with the key, and what to do. */
  readonly unreadable: (why: string) => void;
}

const RETRY: Growth = { shortestMs: 500, longestMs: 60_000 };

/** Until nothing is left to do for it, or it can't be read. Tries again after other faults. Rejects with the signal's reason alone. */
export async function attend(attending: Attending, signal: AbortSignal): Promise<void> {
  const { ways, runs, request, looks, unreadable } = attending;
  const { deps } = ways;
  let said = '';
  const name = `job ${jobText(request.look().value.ref)}`;
  const memory: Memory = { known: undefined, isEndTold: false, told: undefined };
  for (let failures = 0; ;) {
    try {
      const next = await looks.inside(() => step(attending, memory, signal), { signal });
      if (next === 'over') return;
      if (next !== 'again') await next.first();
      failures = 0;
      said = '';
    } catch (error) {
      signal.throwIfAborted();
      const pauseMs = growingMs(failures, RETRY, deps.random);
      failures += 1;
      const fault = reasonOf(error);
      // While its process lives, that is looked after.
      if (isRunlockError(error, 'incompatible') && !runs.isAlive(request.look().value.ref)) {
        unreadable(fault);
        return;
      }
      if (fault !== said) deps.emit({ event: 'agent-part-failed', part: name, detail: { fault, pauseMs } });
      said = fault;
      await deps.clock.sleep(pauseMs, { signal });
    }
  }
}

/** Only saves reads, and finds a job whose request is gone. */
interface Memory {
  known: KnownJob | undefined;
  /** How it ended here is in the log. */
  isEndTold: boolean;
  /** What was said of its last process, or could not be. */
  told: string | undefined;
}

/** `over`: nothing is left to do. `first`: comes before the next look, takes long, and asks Consul for little. */
type Next = 'over' | 'again' | { readonly first: () => Promise<void> };

/** One look and what follows from it. */
async function step(attending: Attending, memory: Memory, signal: AbortSignal): Promise<Next> {
  const { ways, runs, request } = attending;
  const { consul, deps, prefix, node, known } = ways;
  const now = { known: known.look(), request: request.look() };
  const { ref, older } = now.request.value;
  const of: OfTarget = {
    consul,
    deps,
    prefix,
    ref,
    node,
    signal,
    ...(memory.known && { known: memory.known }),
  };
  const look = await lookAt(of, of, { signal });
  attending.read();
  if (look.kind === 'target') memory.known = look.known;
  const seen: OfTarget = { ...of, seen: look };
  const shown: Shown = {
    look,
    host: await hostShown({ ...attending, ref }, look, signal),
    stop: stopOf(now.known.value),
    refusal: refusalOf(look, { principal: ref.principal, older }, now.known.value),
    nowMs: deps.clock.now(),
  };
  let deed = decide(shown);
  // Only people need it: where it can't be written, the next try goes on.
  if (deed.kind === 'tell' && deed.why === memory.told)
    deed = decide({ ...shown, host: { ...shown.host, lastEnd: undefined } });
  switch (deed.kind) {
    case 'wait': {
      const changes = [now.known.change, now.request.change] as const;
      return { first: () => waitFor(attending, { look, until: deed.until, changes }, signal) };
    }
    case 'start':
      return { first: () => start(attending, look, signal) };
    case 'drop':
      return (await drop(seen, { ...deed, look }, { memory, runs, ways })) ? 'over' : 'again';
    case 'accept': {
      // What the files say at this moment counts, and what rights the token has.
      await Promise.all([ways.refresh(), askRights(ways, signal)]);
      if (known.look().change !== now.known.change) return 'again';
      const { kind } = await acceptTarget(seen);
      if (kind === 'accepted') deps.emit({ event: 'request', job: jobText(ref), step: 'accepted' });
      return 'again';
    }
    case 'refuse':
    case 'end':
      await end(seen, deed, { ways, memory });
      return 'again';
    case 'after-reboot':
      await afterReboot(of, look, { ways, memory });
      return 'again';
    case 'tell':
      memory.told = deed.why;
      await noteTarget(seen, deed.why);
      return 'again';
    default:
      return assertNever(deed);
  }
}

const stopOf = ({ pause, serving }: Known) =>
  pause ? 'paused' : serving.kind === 'unknown' ? 'unknown-rights' : undefined;

function refusalOf(
  look: Look,
  { principal, older }: { readonly principal: string; readonly older: number },
  { files, serving }: Known,
): string | undefined {
  if (look.kind !== 'target') return undefined;
  if (serving.kind === 'refused') return `requests are not served here: ${serving.why}`;
  const { document, spec } = look.target;
  // One that was accepted is not too many any more.
  const before = document ? 0 : older;
  return whyRefused({ principal, spec: spec.value, older: Math.min(before, MOST_OPEN) }, files);
}

interface Around {
  readonly memory: Memory;
  readonly runs: Runs;
  readonly ways: AgentWays;
}

async function drop(
  of: OfTarget,
  { why, look }: Extract<Deed, { kind: 'drop' }> & { readonly look: Look },
  { memory, runs, ways: { deps } }: Around,
): Promise<boolean> {
  if (look.kind === 'target' && !memory.isEndTold) tellEnd(deps, of, look.target);
  memory.isEndTold = true;
  const result = await dropPointer(of);
  if (result.kind === 'needed') return false;
  // Its request is gone: nobody else may learn that the rest of the job never comes.
  if (why === 'gone' && memory.known) await stopJob({ ...of, home: memory.known.home }, { why: 'gone' });
  runs.forget(of.ref);
  if (why !== 'over')
    deps.emit({
      event: 'request',
      job: jobText(of.ref),
      step: 'dropped',
      why: look.kind === 'broken' ? look.why : DROPPED[why],
    });
  return true;
}

/** How a run ended that has recorded that itself. */
function tellEnd({ emit }: AgentWays['deps'], { ref }: OfTarget, { document }: SeenTarget): void {
  const { state, exitCode, startedAt, endedAt, why, served } = document?.value ?? {};
  const isRun = startedAt !== undefined || served;
  if (state === undefined || endedAt === undefined || !isRun) return;
  emit({
    event: 'request',
    job: jobText(ref),
    step: 'ended',
    state,
    ...(exitCode !== undefined && { exitCode }),
    ...(startedAt !== undefined && { ranMs: Math.max(0, Date.parse(endedAt) - Date.parse(startedAt)) }),
    ...(why !== undefined && { why }),
  });
}

const DROPPED = {
  gone: 'the request is gone',
  unmeant: 'it does not name this node',
  broken: 'its job is gone',
} as const;

async function end(
  of: OfTarget,
  deed: Extract<Deed, { kind: 'end' | 'refuse' }>,
  { ways: { deps }, memory }: Pick<Around, 'ways' | 'memory'>,
): Promise<void> {
  const endedAt = new Date(deps.clock.now()).toISOString();
  const final: End =
    deed.kind === 'end' ? { endedAt, ...deed.end } : { state: 'refused', endedAt, why: deed.why };
  let seen: string | undefined;
  const result = await endTarget(of, {
    isNode: true,
    ...(deed.kind === 'end' && deed.owner && { owners: [deed.owner] }),
    end: (target) => {
      // A run that began, or another one, is not what this end is for.
      const now = signatureOf(target);
      seen ??= now;
      return now === seen ? final : undefined;
    },
  });
  if (result.kind !== 'ended') return;
  memory.isEndTold = true;
  deps.emit({
    event: 'request',
    job: jobText(of.ref),
    step: 'ended',
    state: final.state,
    ...(final.why !== undefined && { why: final.why }),
  });
}

async function afterReboot(of: OfTarget, look: Look, around: Pick<Around, 'ways' | 'memory'>): Promise<void> {
  const { ways, memory } = around;
  if (look.kind !== 'target') return;
  const { task: name, home, noop = false, maxRunning } = look.target.spec.value;
  const served = ways.known.look().value.files.tasks.find(({ task }) => task.name === name);
  const lost = (why: string) => end(of, { kind: 'end', end: { state: 'lost', why } }, around);
  if (!served) return lost('its host has booted, and its task is not in the files of this node any more');
  if (served.needsHealth && !noop)
    return lost('its host has booted, and a run that waits for health cannot be ended by the agent');
  const ofJob = noop || maxRunning !== undefined ? [jobGroup(home, of.ref)] : [];
  const { newId } = ways.posting;
  const asked = noop
    ? { groups: ofJob, publish: [], during: [], newId }
    : { ...served, groups: [...served.shown.groups, ...ofJob], newId };
  switch (await endAfterReboot(of, asked)) {
    case 'changed':
      return;
    case 'unpublished':
      return lost(
        'its host has booted, and its slots were cleared or taken meanwhile: nothing was published',
      );
    case 'good':
      break;
  }
  memory.isEndTold = true;
  const job = jobText(of.ref);
  ways.deps.emit({ event: 'request', job, step: 'ended', state: 'good', why: 'its host has booted' });
}

const signatureOf = ({ document }: SeenTarget) =>
  `${document?.value.state ?? ''} ${document?.value.run ?? ''}`;

async function start({ ways, runs, request }: Attending, look: Look, signal: AbortSignal): Promise<void> {
  if (look.kind !== 'target') return;
  const { order, ref } = request.look().value;
  const { deps, known } = ways;
  const before = known.look().change;
  await runs.room(order, { signal });
  await ways.refresh();
  if (known.look().change !== before) return;
  const { task, params, nonce, noop, maxRunning } = look.target.spec.value;
  const limit = maxRunning === undefined ? {} : { maxRunning };
  runs.start({ ref, nonce, task, params, ...(noop && { noop }), ...limit });
  deps.emit({ event: 'request', job: jobText(ref), step: 'started', task });
}

interface Waiting {
  readonly look: Look;
  readonly until: Awaited;
  /** Of what is known, and of the request, when it was looked at. */
  readonly changes: readonly [number, number];
}

/** Of what is left of a run. */
const REMAINS_MS = 1_000;
/** Without a watch of its own. */
const UNWATCHED_MS = 30_000;

async function waitFor(
  { ways, runs, request, watches }: Attending,
  { look, until, changes: [ofKnown, ofRequest] }: Waiting,
  signal: AbortSignal,
): Promise<void> {
  const { consul, deps, prefix, node, known } = ways;
  const { clock } = deps;
  const { ref } = request.look().value;
  if (until.kind === 'exec') return runs.ended(ref, { signal });
  if (until.kind === 'remains') return clock.sleep(REMAINS_MS, { signal });
  const over = new AbortController();
  const either = { signal: AbortSignal.any([signal, over.signal]) };
  const leftMs = Math.max(0, until.atMs - clock.now());
  const isWatched = until.kind === 'stage' && look.kind === 'target' && watches.take();
  const waits: Promise<unknown>[] = [
    clock.sleep(isWatched || until.kind === 'node' ? leftMs : Math.min(leftMs, UNWATCHED_MS), either),
    known.past(ofKnown, either),
    request.past(ofRequest, either),
  ];
  if (isWatched) {
    const { spec, stage } = look.target;
    const key = jobKeys(prefix, spec.value.home, ref).stage;
    const total = spec.value.stages.reduce((sum, size) => sum + size, 0);
    const opens = async () => {
      const { index } = stage;
      for (let at = index; ;) {
        const seen = await lookPast((past) => consul.get(key, { ...past, ...either }), at);
        if (seen.entry?.modifyIndex !== index) break;
        at = seen.index;
      }
      await clock.sleep(spreadMs(node, total), either);
    };
    waits.push(opens());
  }
  try {
    await Promise.race(waits);
  } finally {
    over.abort();
    if (isWatched) watches.give();
    await Promise.allSettled(waits);
  }
}
