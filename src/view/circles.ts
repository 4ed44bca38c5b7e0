/** Runs that wait for each other, so that none of them can start (docs/adr/0035-circles.md). Pure. */
import { hint } from '../text/suggested-command.ts';
import { visible } from '../text/visible.ts';
import type { GroupFacts } from './explain.ts';
import type { CircleRunView, CircleView } from './report.ts';
import { findCircles, findStuck, wayAround } from './stuck.ts';
import { waitGraph } from './wait-graph.ts';
import type { GraphOptions, Meaning, Waiter, WaitGraph } from './wait-graph.ts';

/**
 * Only circles out of which nothing leads that Consul knows of: every run that could bring about what one of them waits
 * for waits in the circle, or for it. @param groups every group that was read.
 */
export function findWaitCircles(groups: readonly GroupFacts[], options: GraphOptions): CircleView[] {
  if (!groups.some(({ outside = [], queue }) => outside.length + queue.length > 0)) return [];
  const graph = waitGraph(groups, options);
  const found = findCircles(graph.nodes, findStuck(graph.nodes));
  const circles = found.map((circle) => {
    const runs = circle.filter((i) => graph.nodes[i]?.means.kind === 'run').sort((a, b) => a - b);
    return { circle, runs, first: runs[0] ?? 0 };
  });
  return circles
    .sort((a, b) => a.first - b.first)
    .map(({ circle, runs, first }) =>
      viewCircle(graph, wayAround(graph.nodes, circle, first), { runs, options }),
    );
}

function viewCircle(
  { nodes }: WaitGraph,
  way: readonly number[],
  { runs, options }: { runs: readonly number[]; options: Pick<GraphOptions, 'prefix'> },
): CircleView {
  const meanings = way.flatMap((i) => nodes[i]?.means ?? []);
  const starts = meanings.flatMap(({ kind }, i) => (kind === 'run' ? [i] : []));
  const views = starts.flatMap((from, i): CircleRunView[] => {
    const self = meanings[from];
    const next = meanings[starts[(i + 1) % starts.length] ?? 0];
    if (self?.kind !== 'run' || next?.kind !== 'run') return [];
    return [viewRun(self, meanings.slice(from + 1, starts[i + 1]), next)];
  });
  const others = runs.length - views.length;
  return {
    runs: views,
    ...(others > 0 && { others }),
    why: sentence(views, others),
    next: nextOf(meanings, options.prefix),
  };
}

/** @param between what leads from the run to the next one. */
function viewRun({ node, run, groups }: Waiter, between: readonly Meaning[], next: Waiter): CircleRunView {
  const [wanted] = between;
  const waitsFor =
    wanted?.kind === 'condition'
      ? visible(wanted.condition.text)
      : wanted?.kind === 'slots' || wanted?.kind === 'behind'
        ? `a slot of ${wanted.group}`
        : 'a slot';
  return { node, run, groups, waitsFor, because: becauseOf(between, next) };
}

function becauseOf(between: readonly Meaning[], { node }: Waiter): string {
  const slot = between.find((each) => each.kind === 'slot');
  if (slot) return `${node} holds slot ${slot.slot} of ${slot.group}`;
  if (between.some(({ kind }) => kind === 'state')) return `${node} publishes it`;
  if (between.some(({ kind }) => kind === 'behind')) return `${node} is ahead`;
  return `only a run of ${node} can make this true`;
}

/** As many runs as people read. */
const SHOWN = 8;

function sentence(runs: readonly CircleRunView[], others: number): string {
  const texts = runs
    .slice(0, SHOWN)
    .map(
      ({ node, groups, waitsFor, because }) =>
        `${node} (${placeText(groups)}) is waiting for ${waitsFor} (${because})`,
    );
  const more = runs.length - texts.length + others;
  const rest = more === 0 ? [] : [`${more} more ${more === 1 ? 'run is' : 'runs are'} part of this`];
  const end = runs.length === 1 && others === 0 ? 'the run is waiting for itself' : 'none of them can start';
  return [...texts, ...rest, end].join('; ');
}

function placeText([first = '', ...more]: readonly string[]): string {
  return more.length === 0 ? first : `${first} and ${more.length} more`;
}

/** A state that somebody sets by hand ends the circle without stopping anything. */
function nextOf(meanings: readonly Meaning[], prefix: string): string {
  const stop = 'stop one of these runs and start it with other conditions';
  const state = meanings.flatMap((each) =>
    each.kind === 'condition' &&
    each.condition.kind === 'state' &&
    !each.condition.not &&
    each.condition.is !== 'other'
      ? [each.condition]
      : [],
  )[0];
  if (!state) return stop;
  const { path, value = 'VALUE' } = state;
  return `${stop}, or set the state by hand with '${hint(prefix, 'state', 'set', path, value)}'`;
}
