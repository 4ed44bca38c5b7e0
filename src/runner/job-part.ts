/**
 * The part that a job has in a run (`task run --job`): its command starts only while the job asks for it, and the end of
 * the run is the end of the job's target (docs/protocol.md, "The run of a job"). Loaded for such runs only.
 */
import { FIRST_CONTACT } from '../consul/consul.ts';
import { agentNode } from '../consul/session.ts';
import { RunlockError, reasonOf } from '../errors.ts';
import { checkFolder } from '../jobs/folder-node.ts';
import { jobText } from '../jobs/keys.ts';
import { endInLedger, hasStarted, noteEnd, noteStart, readLedger } from '../jobs/ledger.ts';
import type { LedgerEnd } from '../jobs/ledger.ts';
import { lookAt } from '../jobs/read.ts';
import { readRuns } from '../jobs/read-runs.ts';
import type { Look } from '../jobs/read.ts';
import { mayBeServed, servedBy } from '../jobs/served.ts';
import { delayOf, whyNotStart } from '../jobs/stage.ts';
import { fits, startTarget } from '../jobs/transactions.ts';
import type { SeenTarget } from '../jobs/transactions.ts';
import { endAlone, endOf, endServed, isOurs, jobEnd, lookAtTarget, rulesOf } from './job-end.ts';
import type { RunOf } from './job-end.ts';
import { isOfJob } from '../lock/keys.ts';
import type { Limits } from '../lock/release.ts';
import { followStage, stoppedText } from './job-stage.ts';
import { liveLine } from './job-tail.ts';
import type { LiveLine } from './job-tail.ts';
import type { ExecDeps, ExecOptions, JobChoice } from './options.ts';
import type { Leaving, Part, StartPart } from './part.ts';

type Asked = Pick<
  ExecOptions,
  'prefix' | 'groups' | 'node' | 'task' | 'when' | 'publish' | 'during' | 'sessionTtlMs'
> & {
  readonly job: JobChoice;
};

/** A job that asks for this run, as it was before the run asked for anything. */
interface Opened {
  readonly of: RunOf;
  readonly target: SeenTarget;
}

export function jobPart(deps: ExecDeps, asked: Asked): Part {
  const { clock } = deps;
  let opened: Opened | undefined;
  let hasBegun = false;
  let line: string | undefined;
  let live: LiveLine | undefined;
  const now = () => {
    if (!opened) throw new RunlockError('bug', 'a job was not looked at before its run; please report this');
    return opened;
  };
  let isTold = false;
  const unrecorded = (why: string) => {
    if (!isTold)
      deps.emit({ event: 'job-end-unrecorded', job: jobText(asked.job.ref), detail: { fault: why } });
    isTold = true;
  };
  const begun = () => {
    hasBegun = true;
    live?.begin();
  };
  return {
    check: async (signal) => {
      checkSize(asked);
      const of = { ...(await runOf(deps, asked, signal)), lastLine: () => line, unrecorded };
      checkFolder(of.stateFolder, of.node);
      for (;;) {
        const look = await lookAt(of, of, { signal });
        const judged = judge(look, { job: asked.job, node: of.node }, clock.now());
        if (judged.kind === 'left') return judged;
        if (judged.kind === 'open') {
          opened = { of: { ...of, known: judged.known }, target: judged.target };
          return undefined;
        }
        await clock.sleep(judged.leftMs, { signal });
      }
    },
    hearLine: (said) => {
      if (!asked.job.tail) return;
      line = said;
      live?.hear(said);
    },
    timeoutMs: () => now().target.spec.value.timeoutMs,
    follow: ({ signal, leave, kill }) => {
      const { of, target } = now();
      const { slots } = asked.groups.reduce((least, each) => (each.slots < least.slots ? each : least));
      const told = liveLine({ of, slots, signal });
      live = told;
      const following = {
        of,
        from: target.stage.index,
        signal,
        watched: (untilMs: number) => told.watched(untilMs),
      };
      void followStage(deps, following, async (stage) => {
        if (stage?.kind === 'stopped' && hasBegun) {
          if (stage.kill) kill({ kind: 'cancelled', why: stoppedText(of.ref, stage) });
          return;
        }
        if (hasBegun) return;
        const judged = judge(
          await lookAt(of, of, { signal }),
          { job: asked.job, node: of.node },
          clock.now(),
        );
        // What it does from here on only `start` decides.
        if (judged.kind === 'left') leave(judged.why);
      });
    },
    start: () => startOf(deps, { ...now(), asked, begun }),
    end: (slots, ran) => {
      const at = new Date(clock.now()).toISOString();
      return jobEnd(now().of, endOf(slots, ran, at), (recorded) => endOf(slots, recorded, at));
    },
  };
}

/** @throws RunlockError `usage`: its start or its end would be too large for one transaction. */
function checkSize({ job, groups, when = [], publish = [], during = [] }: Asked): void {
  const conditions = new Set(when.flatMap((one) => (one.kind === 'state' ? one.path : []))).size;
  const size = { groups: groups.length, publish: publish.length, during: during.length, conditions };
  if (fits(size)) return;
  throw new RunlockError(
    'usage',
    `task ${job.task} can't run for a job: its groups, states and conditions take more than the 64 operations of one transaction; use fewer of them`,
  );
}

async function runOf(deps: ExecDeps, { prefix, node, sessionTtlMs, job }: Asked, signal: AbortSignal) {
  const { consul, run } = deps;
  const session = { name: 'runlock job', ttlMs: sessionTtlMs, signal, ...FIRST_CONTACT };
  const name = node ?? (await agentNode({ consul, deps }, session));
  const { ref, stateFolder, home } = job;
  return { consul, deps, prefix, ref, node: name, run: run.id, home, stateFolder };
}

type Judged =
  | { readonly kind: 'open'; readonly target: SeenTarget; readonly known: RunOf['known'] & object }
  | { readonly kind: 'pause'; readonly leftMs: number }
  | Leaving;

interface Judging {
  readonly job: JobChoice;
  readonly node: string;
}

/** Whether a run may begin, or wait for its slots, by one consistent look. Pure but for the record on the disk. */
export function judge(look: Look, { job, node }: Judging, nowMs: number): Judged {
  const name = `job ${jobText(job.ref)}`;
  const left = (why: string): Judged => ({ kind: 'left', why: `${name} ${why}` });
  if (look.kind === 'gone') return left('is gone');
  if (look.kind === 'unmeant') return left('does not name this node');
  if (look.kind === 'broken') return left(`is incomplete: ${look.why}`);
  const { target } = look;
  const { spec, stage, targetStage, document } = target;
  const { task, params, home, noop = false, until, maxRunning, splayMs } = spec.value;
  if (task !== job.task || !isSame(params, job.params)) return left(`asks for something else: task ${task}`);
  if (home !== job.home) return left(`is in ${home}, which is not the home of task ${task}`);
  if (noop !== job.noop)
    return left(noop ? 'only tries, and this is the real run' : 'is real, and this run only tries');
  if (maxRunning !== job.maxRunning) return left('has another limit of runs at once');
  const delayMs = delayOf(node, splayMs);
  const not = whyNotStart(
    { stage: stage.value, targetStage, document: document?.value, until, delayMs },
    nowMs,
  );
  if (not?.kind === 'not-yet' && not.why === 'pause') return { kind: 'pause', leftMs: not.leftMs };
  if (not)
    return stage.value.kind === 'stopped'
      ? { kind: 'left', why: stoppedText(job.ref, stage.value) }
      : left(NOT[not.why]);
  if (hasStarted(readLedger(job.stateFolder, job.ref, node), spec.value.nonce))
    return left('was started here before');
  return { kind: 'open', target, known: look.known };
}

const NOT = {
  fill: 'is not written completely yet',
  stage: 'has not come to this node yet',
  pause: 'pauses before the next stage',
  stopped: 'was stopped',
  done: 'is done',
  expired: 'is past its end',
  target: 'does not ask this node any more',
} as const;

const isSame = (asked: Readonly<Record<string, string>>, given: Readonly<Record<string, string>>): boolean =>
  Object.keys(asked).length === Object.keys(given).length &&
  Object.entries(asked).every(([name, value]) => given[name] === value);

interface Starting extends Opened {
  readonly asked: Asked;
  readonly begun: () => void;
}

function startOf({ clock, host }: ExecDeps, { of, target: first, asked, begun }: Starting): StartPart {
  const { run, stateFolder, ref, node } = of;
  const { bootId } = host.self();
  let startedAt = '';
  let isNoted = false;
  /** A run of the same task may have ended well while this one waited for its turn. */
  const servedNow = async (target: SeenTarget, limits: Limits): Promise<Leaving | undefined> => {
    const { consul, prefix, node } = of;
    const { digest } = asked.task ?? {};
    if (digest === undefined || !mayBeServed(target, clock.now())) return undefined;
    const groups = asked.groups.map(({ group }) => group).filter((group) => !isOfJob(group));
    const runs = await readRuns({ consul, prefix, groups, node }, limits);
    const endOf = (now: SeenTarget) => servedBy(now, { runs, digest, nowMs: clock.now() });
    const end = endOf(target);
    if (!end) return undefined;
    return {
      kind: 'left',
      why: `job ${jobText(ref)} was ${end.why}`,
      after: () => endServed(of, endOf),
    };
  };
  return {
    rule: rulesOf(of),
    steps: async ({ limits }) => {
      const look = await lookAt(of, of, { ...limits, retryForMs: 0 });
      if (look.kind === 'target' && isOurs(look.target, run)) return { kind: 'begun' };
      const judged = judge(look, { job: asked.job, node: of.node }, clock.now());
      if (judged.kind === 'left') return judged;
      if (judged.kind === 'pause' || judged.target.spec.value.nonce !== first.spec.value.nonce)
        return { kind: 'left', why: `job ${jobText(ref)} has changed` };
      const served = await servedNow(judged.target, limits);
      if (served) return served;
      startedAt = new Date(clock.now()).toISOString();
      return { kind: 'steps', steps: startTarget(judged.target, { run, bootId, at: startedAt }) };
    },
    // What is read next decides: another target may have ended in that moment.
    refused: () => Promise.resolve({ kind: 'again' }),
    begun: () => {
      const { nonce, until } = first.spec.value;
      noteStart(stateFolder, ref, { nonce, node, run, bootId, startedAt, until });
      isNoted = true;
      begun();
      return Promise.resolve();
    },
    // Of an earlier start that the disk knows, and Consul forgot, the end is this target's.
    undo: async (fault) => {
      const at = new Date(clock.now()).toISOString();
      const before = readLedger(stateFolder, ref, node);
      const isStale = !isNoted && hasStarted(before, first.spec.value.nonce);
      const end = isStale ? { ...endInLedger(before), endedAt: at } : undone(fault, { at, isNoted });
      if (isNoted) noteEnd(stateFolder, ref, { run, end });
      // Only what this run has started: another may have come before it.
      const target = await lookAtTarget(of, {
        signal: AbortSignal.timeout(UNDO_MS),
        timeoutMs: UNDO_MS,
      }).catch(() => undefined);
      if (target && isOurs(target, run)) await endAlone(of, end).catch(() => undefined);
    },
  };
}

const UNDO_MS = 5_000;

/** The command never began. `fault`: why; undefined: the run was told to leave. */
function undone(
  fault: unknown,
  { at, isNoted }: { readonly at: string; readonly isNoted: boolean },
): LedgerEnd {
  if (fault === undefined) return { state: 'cancelled', endedAt: at, why: 'the command never began' };
  return { state: isNoted ? 'failed' : 'refused', endedAt: at, why: reasonOf(fault) };
}
