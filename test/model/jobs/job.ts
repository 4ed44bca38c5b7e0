// What may happen to the whole job next: its starter, its operator, who looks at it, time, and a snapshot's restore.

import { firstTally, ready, stopped } from '../../../src/jobs/stage.ts';
import { create, fill, markReady, stop } from '../../../src/jobs/transactions.ts';
import type { Stage } from '../../../src/jobs/documents.ts';
import type { RunStep } from '../../../src/lock/transactions.ts';
import { encodeSpec } from '../../../src/jobs/records.ts';
import { spend } from './target.ts';
import { Broken, applyToJob, nodeOf, seenJob, stepsOf } from './transmit.ts';
import { AT, nowOf, place, specIn, specOf, stageIn, tallyIn } from './world.ts';
import type { Job, Next, Sent, State, TxName, World } from './world.ts';

type Keep = (job: Job) => Job;
const same: Keep = (job) => job;

/** Everything that may happen to the job as a whole. */
export function jobNexts(world: World, { job, targets }: State): readonly Next[] {
  const all: Next[] = [];
  const put = (label: string, state: State, isFault = false) => all.push({ label, isFault, state });
  const arrive = (label: string, from: Job, sent: Pick<Sent, 'steps'>): State | 'broken' | undefined => {
    try {
      return applyToJob(from, targets, sent);
    } catch (error) {
      if (!(error instanceof Broken)) throw error;
      all.push({ label, isFault: false, broken: error.message });
      return 'broken';
    }
  };
  const send = (tx: TxName, steps: readonly RunStep[], yes = same) => {
    const sent: Sent = { tx, steps: stepsOf(world, tx, steps) };
    const done = arrive(tx, job, sent);
    if (done === 'broken') return;
    if (done) put(tx, { ...done, job: yes(done.job) });
    if (job.left.late <= 0) return;
    const late = spend(job, 'late');
    const waiting = [...job.sent, sent].sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
    put(`${tx}, late`, { job: { ...late, sent: waiting }, targets }, true);
    if (done) put(`${tx}, unanswered`, { ...done, job: spend(done.job, 'late') }, true);
  };
  for (const [i, sent] of job.sent.entries()) {
    const rest = { ...job, sent: job.sent.filter((_, at) => at !== i) };
    const label = `${sent.tx} arrives late`;
    const done = arrive(label, rest, sent);
    if (done === 'broken') continue;
    if (done) put(label, done);
    put(`${sent.tx} never arrives`, { job: rest, targets });
  }
  const stage = job.stage === '' ? undefined : stageIn(job);
  const isEnded = stage?.kind === 'stopped' || stage?.kind === 'done';
  const isBeingWritten = !stage || stage.kind === 'fill';
  if (job.starter) {
    if (job.left.starterDies > 0 && isBeingWritten)
      put('starter dies', { job: { ...spend(job, 'starterDies'), starter: false }, targets }, true);
    starterSteps(world, { job, targets }, send);
  } else if (job.left.startAgain > 0 && isBeingWritten && !world.fromReady)
    put('it is started again', { job: { ...spend(job, 'startAgain'), starter: true }, targets }, true);
  if (stage && !isEnded && !job.cancels && job.left.cancel > 0)
    put('an operator wants to stop it', { job: { ...spend(job, 'cancel'), cancels: true }, targets }, true);
  if (job.cancels && isEnded)
    put('the operator sees that it has ended', { job: { ...job, cancels: false }, targets });
  const halt = (why: 'cancelled' | 'expired'): Stage | undefined =>
    stage && stopped(stage, { why }, Date.parse(AT));
  const cancelled = job.cancels ? halt('cancelled') : undefined;
  if (cancelled) send('stop', stop(seenJob(job), cancelled));
  if (world.expires && stage && !job.isPast)
    put('its time is over', { job: { ...job, isPast: true }, targets });
  const expired = job.isPast && !isEnded ? halt('expired') : undefined;
  if (expired) send('stop', stop(seenJob(job), expired));
  restoreSteps({ job, targets }, put);
  if (job.left.edit > 0 && stage?.kind === 'open') {
    const other = encodeSpec({ ...specIn(job), params: { x: '1' } });
    put('the request changes', { job: { ...spend(job, 'edit'), spec: other }, targets }, true);
  }
  return all;
}

function starterSteps(
  world: World,
  { job, targets }: State,
  send: (tx: TxName, steps: readonly RunStep[]) => void,
): void {
  if (job.spec === '') {
    send('create', create({ ...place, spec: specOf(world), tally: firstTally(specOf(world), 0) }));
    return;
  }
  const stage = stageIn(job);
  if (stage.kind !== 'fill') return;
  const { filled, chunks } = specIn(job);
  const seen = seenJob(job);
  const next = targets[filled];
  if (filled < chunks && next) {
    send('fill', fill(seen, { targets: [[nodeOf(filled), next.stage]] }));
    return;
  }
  // A broken starter does not look at what has ended meanwhile.
  const blind = world.change === 'ready without the tally';
  const tally = blind ? firstTally(specIn(job), 0) : tallyIn(job);
  const begun = ready(stage, tally, { rules: specIn(job), nowMs: nowOf(job) });
  const steps = markReady(seen, begun);
  send('ready', blind ? steps.filter(({ means }) => means !== 'tally') : steps);
}

function restoreSteps(
  { job, targets }: State,
  put: (label: string, state: State, isFault?: boolean) => void,
): void {
  if (job.left.restore <= 0 || job.stage === '') return;
  if (!job.snapshot) {
    const { spec, stage, tally } = job;
    const kept = targets.map((target) => ({
      ...target,
      snapshot: { document: target.document, pointer: target.pointer, told: target.told },
    }));
    put('a snapshot is taken', { job: { ...job, snapshot: { spec, stage, tally } }, targets: kept }, true);
    return;
  }
  const { snapshot, ...now } = job;
  const back = targets.map(({ snapshot: was, ...target }) => ({ ...target, ...was }));
  put('the snapshot is restored', { job: { ...spend(now, 'restore'), ...snapshot }, targets: back }, true);
}
