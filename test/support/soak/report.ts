/** What came out of a soak, for people. */
import type { SoakPlan } from './plan.ts';
import type { GroupResult, SoakResult } from './driver.ts';

/** Everything that is wrong: broken promises, and ends that nothing explains. */
export function faultsOf({ groups, surprises }: SoakResult): string[] {
  const broken = groups.flatMap(({ name, verdict }) =>
    verdict.broken.map(({ promise, what }) => `${name}: promise ${promise} is broken: ${what}`),
  );
  return [...broken, ...surprises];
}

export function describeResult({ options }: SoakPlan, result: SoakResult): string {
  const faults = faultsOf(result);
  const deeds = [...result.deeds].map(([kind, { planned, hit }]) => `${kind} ${hit}/${planned}`);
  return [
    `seed ${options.seed}: ${options.minutes} minutes`,
    ...result.groups.map(describeGroup),
    `done of what was planned: ${deeds.sort().join(', ')}`,
    ...(faults.length > 0 ? faults : ['no promise is broken, and nothing is left']),
  ].join('\n');
}

function describeGroup({ name, verdict, history, ended }: GroupResult): string {
  const { runs, inOrder, claims } = verdict.judged;
  const count = (word: string) => ended.filter(({ stderr }) => stderr.includes(`"event":"${word}"`)).length;
  const marked = (mark: 'killed') => ended.filter(({ marks }) => marks.has(mark)).length;
  const statuses = new Map<number, number>();
  for (const { status } of ended) statuses.set(status, (statuses.get(status) ?? 0) + 1);
  const codes = [...statuses].sort(([a], [b]) => a - b).map(([status, times]) => `${status}×${times}`);
  const halves = ended.filter(({ isHalves, run }) => isHalves && run !== undefined).length;
  const nodes = new Set(history.runs.map(({ node }) => node)).size;
  return [
    `${name}: ${ended.length} started, ${runs} ran on ${nodes} nodes (judged: ${inOrder} served in order, ${claims} claims changed)`,
    `  exit codes ${codes.join(' ')}; ${count('recovered')} took their lock back, ${marked('killed')} killed, ` +
      `${count('guard')} with a guard lost, ${halves} acquired instead of exec`,
  ].join('\n');
}
