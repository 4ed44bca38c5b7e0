// What must be true of a job in every state.
import { isFinal } from '../../../src/jobs/records.ts';
import { failuresOf } from '../../../src/jobs/stage.ts';
import { documentIn, specIn, stageIn, tallyIn } from './world.ts';
import type { State, World } from './world.ts';

/** The promise that this state breaks. */
export function judge(world: World, { job, targets }: State): string | undefined {
  if (job.stage === '') return undefined;
  const [stage, tally, rules] = [stageIn(job), tallyIn(job), specIn(job)];
  const ended = targets.flatMap((target) => {
    const document = documentIn(target);
    return document && isFinal(document.state) ? [{ stage: target.stage, state: document.state }] : [];
  });
  for (const [i, { final, good }] of tally.stages.entries()) {
    const those = ended.filter((each) => each.stage === i);
    if (those.length !== final || those.filter(({ state }) => state === 'good').length !== good)
      return 'promise 6: the tally is not what its targets say';
  }
  for (const state of new Set([...ended.map((each) => each.state), ...Object.keys(tally.states)]))
    if (
      ended.filter((each) => each.state === state).length !==
      ((tally.states as Record<string, number>)[state] ?? 0)
    )
      return 'promise 6: the tally is not what its targets say';
  const failures = failuresOf(tally, rules);
  if (stage.kind === 'open') {
    if (failures > rules.maxFailures) return 'more failures than are allowed, and the job is not stopped';
    for (const [i, { final, good }] of tally.stages.slice(0, stage.stage).entries()) {
      const size = rules.stages[i] ?? 0;
      if (final < size) return 'a stage is open, and the one before is not complete';
      if (size > 0 && good === 0) return 'a stage is open, and nobody of the one before was good';
    }
    if (targets.some(({ told }) => !told)) return 'the job is open, and a target was never told';
    const vanished = targets.some((target) => {
      const document = documentIn(target);
      return target.pointer === '' && !(document && isFinal(document.state));
    });
    if (vanished) return 'promise 6: a target has neither a pointer nor a final state';
  }
  const all = rules.stages.reduce((sum, size) => sum + size, 0);
  if (stage.kind === 'done' && ended.length !== all) return 'promise 6: done, and not all have ended';
  const acts = targets.some((target) => target.document !== '' || target.runs.length > 0);
  if (stage.kind === 'fill' && acts && world.faults.restore === 0)
    return 'promise 6: a target acts before the job is ready';
  return leftAlone(world, { job, targets });
}

/** A run that nothing has killed does not leave its target running. */
function leftAlone({ faults }: World, { targets }: State): string | undefined {
  if (faults.kill > 0 || faults.hostDies > 0 || faults.restore > 0) return undefined;
  const isAlone = targets.some((target) => {
    const document = documentIn(target);
    return document?.state === 'running' && !target.runs.some(({ id }) => String(id) === document.run);
  });
  return isAlone ? 'a target runs by its document, and its run has left' : undefined;
}

/** The job is over; nothing is under way; and no pointer is left at a node that lives. */
export function isQuiet({ job, targets }: State): boolean {
  if (job.sent.length > 0) return false;
  if (job.stage === '') return true;
  const stage = stageIn(job);
  if (stage.kind === 'fill' || stage.kind === 'open' || job.cancels) return false;
  return targets.every((target) => {
    const isOver = target.runs.length === 0 && target.sent.length === 0;
    const runs = documentIn(target)?.state === 'running';
    return isOver && !runs && (!target.host || (target.agent && target.pointer === ''));
  });
}

/** Ends that only time, or somebody who starts the job again, could end better. */
export function isExcused({ job, targets }: State): boolean {
  if (job.stage === '') return true;
  if (stageIn(job).kind === 'fill' && !job.starter) return true;
  return targets.some((target) => {
    const state = documentIn(target)?.state;
    return !target.host && (state === undefined || state === 'accepted');
  });
}
