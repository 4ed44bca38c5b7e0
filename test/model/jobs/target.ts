// What may happen to one target next: its agent, its runs, and who looks at it. Rests on the job and this target alone.
import { isFinal } from '../../../src/jobs/records.ts';
import { countFinal, next, whyNotStart } from '../../../src/jobs/stage.ts';
import { accept, drop, dropOrphan, final, lost, startTarget } from '../../../src/jobs/transactions.ts';
import type { FinalState } from '../../../src/jobs/documents.ts';
import { encodeStage, encodeTally } from '../../../src/jobs/records.ts';
import { finish, start } from '../../../src/lock/transactions.ts';
import type { RunRecord } from '../../../src/lock/records.ts';
import type { RunStep } from '../../../src/lock/transactions.ts';
import { Broken, applyToTarget, held, ownerSeen, pointerIndex, seenTarget, stepsOf } from './transmit.ts';
import { AT, documentIn, nowOf, specIn, stageIn, tallyIn } from './world.ts';
import type { Faults, Job, Run, Sent, Target, TxName, World } from './world.ts';

/** One step: of the job and of the target, or the promise that it breaks. */
export interface TargetNext {
  readonly label: string;
  readonly isFault: boolean;
  readonly after?: { readonly job: Job; readonly target: Target };
  readonly broken?: string;
}

type Keep = (target: Target) => Target;

export const spend = (job: Job, fault: keyof Faults): Job => ({
  ...job,
  left: { ...job.left, [fault]: job.left[fault] - 1 },
});

/** Collects what may happen next. */
interface Steps {
  readonly world: World;
  readonly job: Job;
  readonly target: Target;
  readonly all: TargetNext[];
  put(label: string, target: Target, more?: { readonly job?: Job; readonly isFault?: boolean }): void;
  fault(label: string, fault: keyof Faults, target: Target): void;
  broken(label: string, broken: string): void;
  /** A request: answered; late; or with its answer lost. `yes`: what its sender does then; `unsure`: without an answer. */
  send(tx: TxName, steps: readonly RunStep[], sending?: Sending): void;
  /** A request arrives now. */
  arrive(label: string, sent: Sent, target: Target): { job: Job; target: Target } | 'broken' | undefined;
}

function stepsFor(world: World, job: Job, target: Target): Steps {
  const all: TargetNext[] = [];
  const put: Steps['put'] = (label, after, { job: then = job, isFault = false } = {}) => {
    all.push({ label, isFault, after: { job: then, target: after } });
  };
  const fault: Steps['fault'] = (label, kind, after) => {
    if (job.left[kind] > 0) put(label, after, { job: spend(job, kind), isFault: true });
  };
  const broken: Steps['broken'] = (label, promise) => {
    all.push({ label, isFault: false, broken: promise });
  };
  const arrive: Steps['arrive'] = (label, sent, at) => {
    try {
      return applyToTarget(job, at, sent);
    } catch (error) {
      if (!(error instanceof Broken)) throw error;
      broken(label, error.message);
      return 'broken';
    }
  };
  const send: Steps['send'] = (tx, steps, { run, yes = same, unsure = same } = {}) => {
    const label = run ? `run ${run.id} sends ${tx}` : tx;
    const asked = tx === 'start' ? { spec: job.spec } : {};
    const sent: Sent = {
      tx,
      steps: stepsOf(world, tx, steps),
      ...asked,
      ...(run && { run: claimOf(run, tx) }),
    };
    const done = arrive(label, sent, target);
    if (done === 'broken') return;
    if (done) put(label, yes(done.target), { job: done.job });
    if (job.left.late <= 0) return;
    fault(`${label}, late`, 'late', unsure({ ...target, sent: sorted([...target.sent, sent]) }));
    if (done)
      put(`${label}, unanswered`, unsure(done.target), { job: spend(done.job, 'late'), isFault: true });
  };
  return { world, job, target, all, put, fault, broken, send, arrive };
}

interface Sending {
  readonly run?: Run;
  readonly yes?: Keep;
  readonly unsure?: Keep;
}

const same: Keep = (target) => target;
const sorted = (sent: readonly Sent[]): readonly Sent[] =>
  [...sent].sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));

/** Only what proves its session rests on it. */
const claimOf = ({ id, returns, hasSession }: Run, tx: TxName): NonNullable<Sent['run']> => ({
  ...{ id, returns, hasSession: hasSession && tx !== 'lost' },
});

/** A session is gone: what rests on it is refused for good, unless it does not prove it. */
function endSession(target: Target, run: Run): Target {
  const proves = ({ steps }: Sent) => steps.some(({ operation }) => operation.verb === 'check-session');
  const sent = target.sent.flatMap((each) => {
    if (each.run?.id !== run.id || each.tx === 'lost') return [each];
    return proves(each) ? [] : [{ ...each, run: { ...each.run, hasSession: false } }];
  });
  return { ...target, sent };
}

const without = (target: Target, run: Run): Target => ({
  ...target,
  runs: target.runs.filter(({ id }) => id !== run.id),
});
const turn =
  (run: Run, change: Partial<Run>): Keep =>
  (target) => ({
    ...target,
    runs: target.runs.map((each) => (each.id === run.id ? { ...each, ...change } : each)),
  });

/** Everything that may happen to this target now. */
export function targetNexts(world: World, job: Job, target: Target): readonly TargetNext[] {
  const steps = stepsFor(world, job, target);
  arrivals(steps);
  surroundings(steps);
  if (job.spec === '') return steps.all;
  if (target.host && target.agent && target.pointer !== '') agentSteps(steps);
  for (const run of target.runs) runSteps(steps, run);
  lookerSteps(steps);
  return steps.all;
}

function arrivals(steps: Steps): void {
  const { target } = steps;
  for (const [i, sent] of target.sent.entries()) {
    const rest = { ...target, sent: target.sent.filter((_, at) => at !== i) };
    const label = `${sent.tx} arrives late`;
    const done = steps.arrive(label, sent, rest);
    if (done === 'broken') continue;
    if (done) steps.put(label, done.target, { job: done.job });
    steps.put(`${sent.tx} never arrives`, rest);
  }
}

function surroundings(steps: Steps): void {
  const { target } = steps;
  const { host, agent, runs } = target;
  if (host) steps.fault('host dies', 'hostDies', { ...target, host: false, agent: false, runs: [] });
  if (agent) steps.fault('agent dies', 'agentDies', { ...target, agent: false });
  if (host && !agent) steps.put('agent starts', { ...target, agent: true });
  for (const run of runs) {
    steps.fault(`run ${run.id} is killed`, 'kill', without(target, run));
    if (run.hasSession && run.at !== 'leaves')
      steps.fault(
        `run ${run.id} loses its session`,
        'expire',
        endSession(turn(run, { hasSession: false })(target), run),
      );
  }
}

/** The end of a target, as everybody writes it. A broken runlock does it otherwise. */
function finalSteps({ world, job, target }: Steps, state: FinalState, isNode: boolean): RunStep[] {
  const end = { state, endedAt: AT };
  const ended = { end, nowMs: nowOf(job), ...(isNode && { isNode: true as const }) };
  const seen = seenTarget(job, target);
  const steps = final(seen, ended);
  const counted = countFinal(tallyIn(job), target.stage, state);
  const after = next(stageIn(job), counted, { rules: specIn(job), nowMs: nowOf(job) });
  const { change } = world;
  const instead = (value: string): RunStep[] =>
    steps.map((step) =>
      step.means === 'stage'
        ? {
            means: 'stage',
            operation: { verb: 'cas', key: step.operation.key, value, index: seen.stage.index },
          }
        : step,
    );
  const unchanged = { verb: 'check-index', key: seen.keys.stage, index: seen.stage.index } as const;
  const stays = steps.map((step): RunStep =>
    step.means === 'stage' ? { means: 'stage', operation: unchanged } : step,
  );
  if (change === 'stop after the failing end' && after?.kind === 'stopped') return stays;
  if (change === 'next stage is the one after' && after?.kind === 'open') {
    const was = stageIn(job);
    return instead(encodeStage({ ...after, stage: (was.kind === 'open' ? was.stage : -1) + 1 }));
  }
  if (change === 'no stage needs a good run' && after?.kind === 'stopped' && after.why === 'unproven') {
    const stage = specIn(job).stages.findIndex((size, i) => (counted.stages[i]?.final ?? 0) < size);
    return instead(encodeStage({ rev: after.rev, kind: 'open', stage, since: AT }));
  }
  return steps;
}

function agentSteps(steps: Steps): void {
  const { world, job, target } = steps;
  const { runs, ledger } = target;
  const [stage, document] = [stageIn(job), documentIn(target)];
  const isEnded = document !== undefined && isFinal(document.state);
  const isFresh = !document || document.state === 'accepted';
  const isIdle = runs.length === 0 && ledger === '';
  const mayAct = stage.kind === 'open' || (world.change === 'act before ready' && stage.kind === 'fill');
  const seen = seenTarget(job, target);
  if (isEnded) steps.send('drop', drop(seen, 'document', pointerIndex(target)));
  else if (stage.kind === 'stopped' && isFresh && isIdle)
    steps.send('drop', drop(seen, 'stage', pointerIndex(target)));
  if (mayAct && !document && ledger === '' && !job.isPast) {
    const more =
      world.change === 'pointer goes with accept'
        ? dropOrphan({ key: seen.requests.pointer(seen.node, 'j'), index: pointerIndex(target) })
        : [];
    steps.send('accept', [...accept(seen, AT), ...more]);
    if (job.left.refuse > 0) ends(steps, 'refused', 'refuse');
  }
  const notNow = whyNotStart(
    { stage, targetStage: target.stage, document, until: specIn(job).until },
    nowOf(job),
  );
  const mayStart = notNow === undefined || (world.change === 'act before ready' && stage.kind === 'fill');
  if (document?.state === 'accepted' && mayStart && ledger === '' && runs.length < (world.double ? 2 : 1)) {
    const id = freshId(target);
    const run: Run = { at: 'waits', id, hasSession: true, returns: 0 };
    const after = { ...target, runs: [...runs, run] };
    if (runs.length > 0) steps.put(`agent starts run ${id} beside another`, after, { isFault: true });
    else steps.put(`agent starts run ${id}`, after);
  }
  // The store went back: the node's own ledger says that its command has begun.
  if (isFresh && ledger !== '' && runs.length === 0 && (stage.kind === 'open' || stage.kind === 'stopped'))
    steps.send('endByAgent', finalSteps(steps, ledger === 'started' ? 'lost' : ledger, true));
  if (document?.state === 'running' && !runs.some(({ id }) => `${id}` === document.run))
    steps.send('endByAgent', finalSteps(steps, 'lost', true));
  if (job.isPast && isFresh && isIdle && stage.kind === 'open')
    steps.send('endByAgent', finalSteps(steps, 'expired', true));
}

/** A final state that is never late: the same operations as the others. */
function ends(steps: Steps, state: FinalState, fault: 'refuse' | 'offline'): void {
  const { target, world } = steps;
  const tx: TxName = state === 'offline' ? 'offline' : 'endByAgent';
  const sent = { tx, steps: stepsOf(world, tx, finalSteps(steps, state, state === 'refused')) } as const;
  const done = steps.arrive(state, sent, target);
  if (done && done !== 'broken') steps.put(state, done.target, { job: spend(done.job, fault) });
}

function freshId({ runs, sent, document, snapshot }: Target): number {
  const documents = [document, snapshot?.document ?? ''].filter((text) => text !== '');
  const known = documents.flatMap((text) => documentIn({ document: text })?.run ?? []);
  const used = new Set([...runs.map(({ id }) => id), ...sent.flatMap(({ run }) => run?.id ?? [])]);
  let id = 1;
  while (used.has(id) || known.includes(String(id))) id += 1;
  return id;
}

function runSteps(steps: Steps, run: Run): void {
  const { world, target } = steps;
  const document = documentIn(target);
  const isMine = document?.state === 'running' && document.run === String(run.id);
  switch (run.at) {
    case 'waits':
    case 'asked':
      startSteps(steps, run, isMine);
      return;
    case 'leaves':
      if (isMine)
        steps.send('endByAgent', finalSteps(steps, 'cancelled', true), {
          yes: (after) => without(after, run),
        });
      else steps.put(`run ${run.id} leaves`, without(target, run));
      return;
    case 'started':
      beginSteps(steps, run);
      return;
    case 'runs':
      if (!run.hasSession) returns(steps, run);
      for (const end of ['good', 'failed'] as const) {
        const ledger = world.faults.restore > 0 && world.change !== 'no ledger' ? end : '';
        steps.put(`the command of run ${run.id} ends: ${end}`, { ...turn(run, { at: end })(target), ledger });
      }
      return;
    case 'good':
    case 'failed':
      endSteps(steps, run, isMine);
  }
}

/** A run takes its lock back, and its claim changes with it. */
function returns(steps: Steps, run: Run): void {
  const change = { hasSession: true, returns: run.returns + 1 };
  steps.put(`run ${run.id} takes its slot back`, turn(run, change)(steps.target));
}

function startSteps(steps: Steps, run: Run, isMine: boolean): void {
  const { world, job, target } = steps;
  const document = documentIn(target);
  const started = turn(run, { at: 'started' });
  if (run.at === 'asked' && isMine) {
    steps.put(`run ${run.id} reads that it has started`, started(target));
    return;
  }
  const asked = { stage: stageIn(job), targetStage: target.stage, document, until: specIn(job).until };
  const notNow = whyNotStart(asked, nowOf(job));
  const isEarly = world.change === 'act before ready' && asked.stage.kind === 'fill';
  const mayStart = document?.state === 'accepted' && (notNow === undefined || isEarly);
  const leaves = () => {
    if (run.at === 'waits') {
      steps.put(`run ${run.id} leaves`, endSession(without(target, run), run));
    } else if (world.change === 'leave before destroying the session') {
      steps.put(`run ${run.id} leaves`, without(target, run));
    } else {
      const left = turn(run, { at: 'leaves', hasSession: false })(target);
      steps.put(`run ${run.id} destroys its session`, endSession(left, run));
    }
  };
  if (!mayStart) {
    leaves();
    return;
  }
  if (!run.hasSession) {
    if (run.at === 'asked') leaves();
    else steps.put(`run ${run.id} queues again`, turn(run, { hasSession: true })(target));
    return;
  }
  const seen = seenTarget(job, target);
  const more = startTarget(seen, { run: String(run.id), bootId: 'b', at: AT });
  steps.send('start', start([held(run)], more), { run, yes: started, unsure: turn(run, { at: 'asked' }) });
}

function beginSteps(steps: Steps, run: Run): void {
  const { world, target } = steps;
  const keepsLedger = world.faults.restore > 0 && world.change !== 'no ledger';
  const label = `the command of run ${run.id} starts`;
  if (keepsLedger && target.ledger !== '') {
    // The file is there already: no command.
    steps.put(`run ${run.id} finds a ledger`, endSession(without(target, run), run));
    return;
  }
  if (target.commands > 0) {
    steps.broken(label, 'promise 5: a command starts twice');
    return;
  }
  const ledger = keepsLedger ? 'started' : '';
  steps.put(label, { ...turn(run, { at: 'runs' })(target), commands: target.commands + 1, ledger });
}

function endSteps(steps: Steps, run: Run, isMine: boolean): void {
  const { world, target } = steps;
  const state = run.at === 'good' ? 'good' : 'failed';
  const document = documentIn(target);
  const isFresh = !document || document.state === 'accepted';
  const isLost = world.change === 'end over lost' && document?.state === 'lost';
  const gone = (after: Target) => endSession(without(after, run), run);
  if (!isMine && !isFresh && !isLost) {
    steps.put(`run ${run.id} releases its slot alone`, gone(target));
    return;
  }
  if (!run.hasSession) {
    returns(steps, run);
    return;
  }
  const record: RunRecord = {
    ...{ node: 'n', run: String(run.id), outcome: 'succeeded', command: 'c', slot: run.id, endedAt: AT },
    ...{ waitedMs: 0, ranMs: 0 },
  };
  const all = finish([{ ...held(run), record }], finalSteps(steps, state, true));
  // The session goes with the run only after the answer: a request that is late may still arrive.
  steps.send('end', all, { run, yes: (after) => without(after, run) });
}

/** Another agent, or an operator's command, that looks at the job. */
function lookerSteps(steps: Steps): void {
  const { world, job, target } = steps;
  const [stage, document] = [stageIn(job), documentIn(target)];
  if (document?.state === 'running') {
    const run = target.runs.find(({ id }) => String(id) === document.run);
    if (!run || !run.hasSession) {
      const seen = seenTarget(job, target);
      const claim = run ?? { at: 'runs', id: Number(document.run), hasSession: false, returns: 0 };
      const rest = finalSteps(steps, 'lost', false);
      const owners = [ownerSeen(claim)];
      const all = lost(seen, owners, { end: { state: 'lost', endedAt: AT }, nowMs: nowOf(job) });
      steps.send('lost', [...all.slice(0, owners.length), ...rest], { run: claim });
    }
  }
  const isFresh = !document || document.state === 'accepted';
  if (isFresh && !target.agent && stage.kind === 'open' && job.left.offline > 0)
    ends(steps, 'offline', 'offline');
  if (world.change === 'stop after the failing end' && target.runs.length === 0) {
    const after = next(stage, tallyIn(job), { rules: specIn(job), nowMs: nowOf(job) });
    if (after?.kind === 'stopped')
      steps.put('the stop follows', target, { job: { ...job, stage: encodeStage(after) } });
  }
  if (
    world.change === 'retry in place' &&
    document?.state === 'lost' &&
    stage.kind === 'open' &&
    target.runs.length === 0
  )
    retryInPlace(steps);
}

function retryInPlace(steps: Steps): void {
  const { job, target } = steps;
  const tally = tallyIn(job);
  const stages = tally.stages.map(({ final: count, good }, i) => ({
    ...{ final: count - (i === target.stage ? 1 : 0), good },
  }));
  const states = { ...tally.states, lost: (tally.states.lost ?? 0) - 1 };
  const back = { ...job, tally: encodeTally({ rev: tally.rev + 1, stages, states }) };
  const after = { ...target, document: '', pointer: 'again', ledger: '' } as const;
  steps.put('the target is tried again in place', after, { job: back, isFault: true });
}
