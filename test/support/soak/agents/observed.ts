// What is to be seen in Consul while a soak with agents goes on: jobs, states, ends of runs.
import { uptimeMs } from '../../history/history.ts';
import { observeJob } from '../../history/job-observer.ts';
import type { JobObserver } from '../../history/job-observer.ts';
import type { JobLook } from '../../history/jobs.ts';
import { read, watchTree } from '../../history/observer.ts';
import type { StoredPair } from '../../history/observer.ts';
import type { Agent } from '../../consul.ts';
import { eventually } from '../../processes.ts';
import { GROUPS } from './nodes.ts';

/** A change of a state. Times are milliseconds since boot. */
export interface StateChange {
  /** `soak/a/n01` */
  readonly path: string;
  /** Absent: it was deleted. */
  readonly change?: string;
  readonly value?: string;
  readonly run?: string;
  /** Not before this; when it was seen. */
  readonly fromMs: number;
  readonly seenMs: number;
}

/** How a run's group says that it ended. */
export interface RecordedRun {
  readonly group: string;
  readonly node: string;
  readonly run: string;
  readonly outcome: string;
  readonly seenMs: number;
}

export interface Observed {
  readonly states: readonly StateChange[];
  readonly records: readonly RecordedRun[];
}

export interface Observing {
  /** From now on, until it is over; `name`: `ops/j1`. */
  job(name: string, home: string): void;
  /** What was seen of each; none: it has never been there. */
  jobs(): ReadonlyMap<string, readonly JobLook[]>;
  /** Looks at all that is not over. @throws while Consul does not answer. */
  look(): Promise<Observed>;
  /** Looks once more at what has been over for long, too. */
  lookAtAll(): Promise<Observed>;
  stop(): Promise<void>;
}

/** A connection that was idle may just have been closed, and a server be paused. */
const PATIENCE_MS = 30_000;

interface Watched {
  readonly prefix: string;
  /** None: it is over. */
  observer: JobObserver | undefined;
  looks: readonly JobLook[];
}

export function observeAgents(server: Pick<Agent, 'http'>): Observing {
  const jobs = new Map<string, Watched>();
  const states = foldStates();
  const records = foldRecords();
  const watches = [
    watchTree(server, 'runlock/.state/soak/', states.take),
    ...GROUPS.map((group) => watchTree(server, `runlock/${group}/.runs/`, records.take(group))),
  ];
  const lookAt = async (job: Watched) => {
    const { observer } = job;
    if (observer) job.looks = [...(await eventually(() => observer.seen(), PATIENCE_MS))];
    if (!isOver(job.looks)) return;
    // Consul allows so many connections of a host, and a watch is one.
    await job.observer?.stop();
    job.observer = undefined;
  };
  const look = async () => {
    await Promise.all(watches.map((watch) => eventually(() => watch.look(), PATIENCE_MS)));
    for (const job of jobs.values()) if (job.observer) await lookAt(job);
    return { states: [...states.all], records: [...records.all.values()] };
  };
  return {
    job: (name, home) => {
      const prefix = `runlock/${home}/.jobs/${name}/`;
      if (!jobs.has(name)) jobs.set(name, { prefix, observer: observeJob(server, prefix), looks: [] });
    },
    jobs: () => new Map([...jobs].map(([name, { looks }]) => [name, looks])),
    look,
    lookAtAll: async () => {
      const seen = await look();
      for (const job of jobs.values()) {
        if (job.observer) continue;
        const again = observeJob(server, job.prefix);
        job.looks = [...job.looks, ...(await eventually(() => again.seen(), PATIENCE_MS))];
        await again.stop();
      }
      return seen;
    },
    stop: async () => {
      const observers = [...jobs.values()].flatMap(({ observer }) => observer ?? []);
      await Promise.all([...watches, ...observers].map((each) => each.stop()));
    },
  };
}

const UNDER_WAY = ['running', 'rebooting'];

/** Nothing of it may change any more. */
export function isOver(looks: readonly JobLook[]): boolean {
  const last = looks.at(-1);
  if (!last) return false;
  const { kind } = last.stage.value;
  const isEnded = kind === 'done' || kind === 'stopped';
  return isEnded && [...last.targets.values()].every(({ value }) => !UNDER_WAY.includes(value.state));
}

function foldStates() {
  const all: StateChange[] = [];
  const bootMs = Date.now() - uptimeMs();
  const known = new Map<string, string>();
  const take = (pairs: readonly StoredPair[]) => {
    const seenMs = uptimeMs();
    const there = new Map(pairs.map((pair) => [pathOf(pair.Key), read(pair)]));
    for (const path of known.keys())
      if (!there.has(path)) {
        known.delete(path);
        all.push({ path, fromMs: seenMs, seenMs });
      }
    for (const [path, { change, value, run, at }] of there) {
      if (typeof change !== 'string' || known.get(path) === change) continue;
      known.set(path, change);
      const fromMs = Math.min(seenMs, Date.parse(String(at)) - bootMs);
      const by = typeof run === 'string' ? { run } : {};
      all.push({ path, change, value: String(value), fromMs, seenMs, ...by });
    }
  };
  return { all, take };
}

function foldRecords() {
  const all = new Map<string, RecordedRun>();
  const take = (group: string) => (pairs: readonly StoredPair[]) => {
    const seenMs = uptimeMs();
    for (const pair of pairs) {
      const { run, node, outcome } = read(pair) as { run: string; node: string; outcome: string };
      // A run that asked for a reboot is recorded again, as good.
      const key = `${group} ${run} ${outcome}`;
      if (!all.has(key)) all.set(key, { group, node, run, outcome, seenMs });
    }
  };
  return { all, take };
}

const pathOf = (key: string) => key.slice('runlock/.state/'.length).replace(/\/\.value$/, '');
