/** What the nodes of a job would wait for if it were started now, and when their turn would come. Pure. */
import { NO_STAGE } from '../jobs/stage.ts';
import type { GroupView, SlotView } from './report.ts';

export interface Forecasting {
  /** Of the task, in the order in which they come; of nodes that would take it. */
  readonly targets: readonly ForecastTarget[];
  /** As they stand; those that could not be read are missing. */
  readonly groups: ReadonlyMap<string, GroupView>;
  /** How long a run of each group takes, in milliseconds; undefined: no good run is recorded there. */
  readonly typicalMs: ReadonlyMap<string, number>;
  readonly maxRunning?: number | undefined;
  readonly pauseMs: number;
  /** Wall clock. */
  readonly nowMs: number;
}

export interface ForecastTarget {
  readonly node: string;
  readonly stage: number;
  readonly groups: readonly string[];
  /** The fewest of its groups; undefined: its agent does not say. */
  readonly slots: number | undefined;
  readonly delayMs: number;
  /** It takes no slot of its groups. */
  readonly noop: boolean;
}

export interface Forecast {
  readonly node: string;
  /** Runs and targets before it that need a slot of the same group; 0: it would start at once. */
  readonly ahead: number;
  /** Undefined: nobody can tell. */
  readonly startsInMs?: number;
  /** What keeps it from starting that does not end by itself. */
  readonly waits: readonly string[];
}

export function forecast(now: Forecasting): readonly Forecast[] {
  const { targets, groups, typicalMs, pauseMs, maxRunning } = now;
  const lanes = new Map<string, Lane>();
  const laneOf = (name: string, slots: number): Lane => {
    const known = lanes.get(name);
    if (known) return known;
    const made = toLane(groups.get(name), { slots, ranMs: typicalMs.get(name), nowMs: now.nowMs });
    lanes.set(name, made);
    return made;
  };
  const own: Lane = { freeMs: Array.from({ length: maxRunning ?? 0 }, () => 0), ahead: 0 };
  let opensMs: number | undefined = 0;
  let endMs: number | undefined = 0;
  let stage = 0;
  const placed = targets.filter((target) => target.stage !== NO_STAGE);
  const told = new Map<string, Forecast>();
  for (const target of placed) {
    if (target.stage > stage) {
      stage = target.stage;
      opensMs = endMs === undefined ? undefined : endMs + pauseMs;
    }
    const group = slowestOf(target, groups);
    const lane = laneOf(target.noop ? '' : group, target.noop ? placed.length : (target.slots ?? 1));
    const { ahead } = lane;
    lane.ahead += 1;
    const ranMs = typicalMs.get(group);
    const waits = waitsOf(target, groups);
    const keepsOwn = groups.get(group)?.slots.some(({ node }) => node === target.node) ?? false;
    const used = [...(keepsOwn || target.noop ? [] : [lane]), ...(maxRunning === undefined ? [] : [own])];
    const startsMs: number | undefined =
      waits.length > 0
        ? undefined
        : startOf(used, opensMs === undefined ? undefined : opensMs + target.delayMs);
    for (const each of used) take(each, startsMs, ranMs);
    endMs = laterOf(endMs, startsMs === undefined || ranMs === undefined ? undefined : startsMs + ranMs);
    told.set(target.node, {
      node: target.node,
      ahead: startsMs === 0 ? 0 : ahead,
      ...(startsMs !== undefined && { startsInMs: startsMs }),
      waits,
    });
  }
  return placed.map(({ node }) => told.get(node)).filter((each) => each !== undefined);
}

/** When each slot is free, from now; undefined: nobody can tell. */
interface Lane {
  readonly freeMs: (number | undefined)[];
  /** Who would be before the next one. */
  ahead: number;
}

interface Known {
  readonly slots: number;
  readonly ranMs: number | undefined;
  readonly nowMs: number;
}

/** Slots that a claim keeps are free for nobody; who waits already comes first. */
function toLane(view: GroupView | undefined, { slots, ranMs, nowMs }: Known): Lane {
  const taken = (view?.slots ?? []).filter(({ state, slot }) => state !== 'free' && slot < slots);
  const running = taken.filter(isUnderWay);
  const leftMs = running.map(({ since }) =>
    ranMs === undefined || since === undefined ? undefined : Math.max(0, ranMs - (nowMs - Date.parse(since))),
  );
  const free = Array.from({ length: Math.max(0, slots - taken.length) }, () => 0);
  const queue = view?.queue.length ?? 0;
  const lane: Lane = { freeMs: [...free, ...leftMs], ahead: queue };
  for (let i = 0; i < queue; i += 1) take(lane, startOf([lane], 0), ranMs);
  return { ...lane, ahead: queue };
}

const isUnderWay = ({ state }: SlotView) => state === 'running' || state === 'evicted' || state === 'locked';

/** The earliest moment from `atMs` on at which each has a free slot. */
function startOf(lanes: readonly Lane[], atMs: number | undefined): number | undefined {
  const earliest = lanes.map(({ freeMs }) => (freeMs.length === 0 ? undefined : leastOf(freeMs)));
  return [atMs, ...earliest].reduce(laterOf, 0);
}

const leastOf = (all: readonly (number | undefined)[]): number | undefined => {
  const known = all.filter((each) => each !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
};

const laterOf = (a: number | undefined, b: number | undefined): number | undefined =>
  a === undefined || b === undefined ? undefined : Math.max(a, b);

function take(lane: Lane, startsMs: number | undefined, ranMs: number | undefined): void {
  const least = leastOf(lane.freeMs);
  const at = least === undefined ? -1 : lane.freeMs.indexOf(least);
  if (at >= 0) lane.freeMs[at] = startsMs === undefined || ranMs === undefined ? undefined : startsMs + ranMs;
}

/** Of several groups, the one where most is before it. */
function slowestOf({ groups: names }: ForecastTarget, groups: Forecasting['groups']): string {
  const [first = '', ...others] = names;
  const load = (name: string) => {
    const view = groups.get(name);
    return (view?.queue.length ?? 0) + (view?.slots.filter(({ state }) => state !== 'free').length ?? 0);
  };
  return others.reduce((most, name) => (load(name) > load(most) ? name : most), first);
}

function waitsOf({ node, groups: names, noop }: ForecastTarget, groups: Forecasting['groups']): string[] {
  return names.flatMap((name) => {
    const view = groups.get(name);
    if (!view) return [];
    const { frozen, state, why, slots } = view;
    if (frozen) return [`${name} is frozen by ${frozen.by} (${frozen.reason})`];
    // A node's own claim keeps others out, not its next run.
    const isBlocked = state === 'blocked' && !slots.some((slot) => slot.node === node);
    return isBlocked && !noop ? [`${name} is blocked: ${why}`] : [];
  });
}

/** The middle of how long good runs took; undefined: there is none. */
export function typicalOf(ranMs: readonly number[]): number | undefined {
  const sorted = [...ranMs].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)];
}
