// What happened to a job, as seen from outside, judged by its promises. Pure; it knows nothing of how runlock keeps them.

/** A command of a job's target, as it noted itself. Times are milliseconds since boot. */
export interface CommandTrace {
  readonly node: string;
  readonly run: string;
  readonly startMs: number;
  /** Its last sign of life. */
  readonly lastMs: number;
  /** Absent: it was of no job. */
  readonly isOfJob?: true;
}

/** A document, and Consul's index of its last change. */
export interface Stamped<T> {
  readonly index: number;
  readonly value: T;
}

/** The job's keys as they were at one moment. */
export interface JobLook {
  readonly stage: Stamped<{ readonly kind: string; readonly why?: string }>;
  readonly tally: Readonly<Record<string, number>>;
  readonly targets: ReadonlyMap<
    string,
    Stamped<{ readonly state: string; readonly run?: string; readonly served?: boolean }>
  >;
}

/** A run of the same task, as its group's record and its claim showed it. */
export interface OtherRun {
  readonly node: string;
  readonly run: string;
  readonly isGood: boolean;
  /** Consul's index of its claim's first write. */
  readonly claimIndex: number;
}

/** A run that a trigger asked for. */
export interface TriggeredRun {
  readonly startMs: number;
  readonly isGood: boolean;
  /** What led to it, each `task@node`, the first cause first, itself last. */
  readonly chain: readonly string[];
}

export interface TriggerTrace {
  readonly task: string;
  /** When what it waits for changed. */
  readonly changesMs: readonly number[];
  readonly runs: readonly TriggeredRun[];
  /** It was paused, tripped or refused from then on. */
  readonly heldBackMs?: number;
}

export interface JobHistory {
  readonly commands: readonly CommandTrace[];
  /** In the order in which they were seen. */
  readonly looks: readonly JobLook[];
  /** The nodes that the lists name. */
  readonly named: readonly string[];
  /** The nodes whose own files let the principal ask for the task. */
  readonly allowing: readonly string[];
  readonly triggers?: readonly TriggerTrace[];
  /** Of the same task, with the same parameters, for others. */
  readonly others?: readonly OtherRun[];
}

export interface Broken {
  readonly promise: 4 | 5 | 6 | 7 | 8 | 9;
  readonly what: string;
}

const broken = (promise: Broken['promise'], what: string): Broken => ({ promise, what });

const FINAL = [
  'good',
  'failed',
  'unhealthy',
  'timed-out',
  'lost',
  'refused',
  'offline',
  'expired',
  'cancelled',
];
const ENDED = ['stopped', 'done'];
const UNDER_WAY = ['running', 'rebooting'];
/** Two readings of a clock that is 10 ms exact. */
const SLACK_MS = 50;
const LONGEST_CHAIN = 9;

export function judgeJob(history: JobHistory): readonly Broken[] {
  return [
    ...notAllowed(history),
    ...twice(history),
    ...atOnce(history),
    ...changed(history),
    ...miscounted(history),
    ...early(history),
    ...unfinished(history),
    ...afterStop(history),
    ...wronglyServed(history),
    ...(history.triggers ?? []).flatMap((trigger) => [
      ...missed(trigger),
      ...needless(trigger),
      ...circles(trigger),
    ]),
  ];
}

/** 4: only where the node's files and the principal's list say so. */
const notAllowed = ({ commands, named, allowing }: JobHistory): Broken[] =>
  commands
    .filter(({ isOfJob }) => isOfJob)
    .flatMap(({ node }) => [
      ...(named.includes(node) ? [] : [broken(4, `${node} ran, and no list names it`)]),
      ...(allowing.includes(node) ? [] : [broken(4, `${node} ran, and its files do not allow it`)]),
    ]);

/** 5: at most one start of each target. */
function twice({ commands }: JobHistory): Broken[] {
  const own = commands.filter(({ isOfJob }) => isOfJob);
  return own
    .filter(({ node }, i) => own.findIndex((other) => other.node === node) !== i)
    .map(({ node, startMs }) => broken(5, `${node} started again at ${startMs}`));
}

/** 5: one task at a time on a host. */
const atOnce = ({ commands }: JobHistory): Broken[] =>
  commands.flatMap((one, i) =>
    commands
      .slice(i + 1)
      .filter(
        (other) =>
          other.node === one.node &&
          other.startMs + SLACK_MS < one.lastMs &&
          one.startMs + SLACK_MS < other.lastMs,
      )
      .map((other) => broken(5, `${one.node} ran ${one.run} and ${other.run} at once`)),
  );

/** 6: what has ended stays as it is. */
const changed = ({ looks }: JobHistory): Broken[] =>
  looks.slice(1).flatMap((look, i) => {
    const before = looks[i];
    if (!before) return [];
    const targets = [...before.targets].flatMap(([node, { value }]) => {
      const now = look.targets.get(node)?.value.state;
      return FINAL.includes(value.state) && now !== value.state
        ? [broken(6, `${node} was ${value.state}, then ${now ?? 'gone'}`)]
        : [];
    });
    const was = before.stage.value.kind;
    const isBack = ENDED.includes(was) && look.stage.value.kind !== was;
    return isBack ? [...targets, broken(6, `the job was ${was}, then ${look.stage.value.kind}`)] : targets;
  });

/** 6: the tally is a recount at every moment. */
const miscounted = ({ looks }: JobHistory): Broken[] =>
  looks.flatMap(({ tally, targets, stage }) =>
    FINAL.flatMap((state) => {
      const there = [...targets.values()].filter(({ value }) => value.state === state).length;
      // Those that were offline at the start are counted without a document.
      const counted = tally[state] ?? 0;
      const isRight = state === 'offline' ? counted >= there : counted === there;
      return isRight
        ? []
        : [broken(6, `${counted} ${state} are counted at ${stage.index}, ${there} are there`)];
    }),
  );

/** 6: nothing acts before the job is ready. */
const early = ({ looks }: JobHistory): Broken[] =>
  looks
    .filter(({ stage, targets }) => stage.value.kind === 'fill' && targets.size > 0)
    .map(({ targets }) => broken(6, `${[...targets.keys()].join(', ')} acted before the job was ready`));

/** 6: once it is over, every target has a final state, its own or by the stop. */
function unfinished({ looks, named }: JobHistory): Broken[] {
  const last = looks.at(-1);
  if (!last) return [];
  const { kind } = last.stage.value;
  if (!ENDED.includes(kind)) return [broken(6, `the job is ${kind} in the end`)];
  const stateOf = (node: string) => last.targets.get(node)?.value.state ?? 'queued';
  const open = named.filter((node) => {
    const state = stateOf(node);
    return kind === 'done' ? !FINAL.includes(state) : UNDER_WAY.includes(state);
  });
  // Those without a document in a job that is done were offline at the start, and are counted as such.
  const absent = (last.tally['offline'] ?? 0) - named.filter((node) => stateOf(node) === 'offline').length;
  const queued = open.filter((node) => stateOf(node) === 'queued');
  const rest = queued.length === absent ? open.filter((node) => !queued.includes(node)) : open;
  return rest.map((node) => broken(6, `${node} is ${stateOf(node)} in a job that is ${kind}`));
}

/** 8: in the order of Consul's log no start follows the stop. */
const afterStop = ({ looks }: JobHistory): Broken[] => {
  const stop = looks.find(({ stage }) => stage.value.kind === 'stopped')?.stage.index ?? Infinity;
  const begun = looks.flatMap(({ targets }) =>
    [...targets].filter(([, { index, value }]) => value.state === 'running' && index > stop),
  );
  return [...new Map(begun)].map(([node, { index }]) =>
    broken(8, `${node} started at ${index}, after the stop at ${stop}`),
  );
};

/** 6: another run makes a target good only if it was good itself, and began once the target's stage was open. */
const wronglyServed = ({ looks, commands, others = [] }: JobHistory): Broken[] =>
  [...(looks.at(-1)?.targets ?? [])].flatMap(([node, { index, value }]) => {
    if (value.served !== true) return [];
    const by = others.find(({ run }) => run === value.run);
    const opened = looks.filter(({ stage }) => stage.value.kind === 'open' && stage.index < index).at(-1);
    const wrong = [
      ...(value.state === 'good' ? [] : [`as ${value.state}`]),
      ...(by?.node === node ? [] : ['by a run of no such node']),
      ...(by?.isGood === true ? [] : ['by a run that was not good']),
      ...(by && opened && by.claimIndex > opened.stage.index ? [] : ['by a run that began before']),
      ...(commands.some((one) => one.isOfJob && one.node === node) ? ['and ran'] : []),
    ];
    return wrong.map((how) => broken(6, `${node} was served ${how}`));
  });

/** 7: each change is followed by a run that starts after it. */
const missed = ({ task, changesMs, runs, heldBackMs = Infinity }: TriggerTrace): Broken[] =>
  changesMs
    .filter((ms) => ms < heldBackMs && !runs.some(({ startMs }) => startMs >= ms - SLACK_MS))
    .map((ms) => broken(7, `${task} did not run after the change at ${ms}`));

/** 7: no run without a change since the good run before it. */
const needless = ({ task, changesMs, runs }: TriggerTrace): Broken[] =>
  runs.flatMap(({ startMs }, i) => {
    const good = runs.slice(0, i).findLast(({ isGood }) => isGood)?.startMs ?? -Infinity;
    const asked = changesMs.some((ms) => ms > good - SLACK_MS && ms <= startMs + SLACK_MS);
    return asked ? [] : [broken(7, `${task} ran at ${startMs}, and nothing had changed`)];
  });

/** 9: no chain of causes without an end. */
const circles = ({ task, runs }: TriggerTrace): Broken[] =>
  runs.flatMap(({ chain, startMs }) =>
    chain.length > LONGEST_CHAIN || new Set(chain).size !== chain.length
      ? [broken(9, `${task} ran at ${startMs} by ${chain.join(' → ')}`)]
      : [],
  );
