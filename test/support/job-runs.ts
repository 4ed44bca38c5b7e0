// A run of a job, as the node's agent would start it: a task file, a request that stands in Consul and is accepted, a folder.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { Spec, TargetDocument } from '../../src/jobs/documents.ts';
import { acceptTarget, endTarget, stopJob } from '../../src/jobs/end.ts';
import type { EndRequest } from '../../src/jobs/end.ts';
import { lookAt } from '../../src/jobs/read.ts';
import { startJob } from '../../src/jobs/starter.ts';
import type { Target } from '../../src/jobs/starter.ts';
import type { Stop } from '../../src/jobs/stage.ts';
import type { SeenTarget } from '../../src/jobs/transactions.ts';
import type { Agent } from './consul.ts';
import { groupOf } from './group.ts';
import { writes } from './proxy-steps.ts';
import type { Match } from './proxy.ts';
import { startRunlock } from './runlock.ts';
import { stage } from './stage.ts';

/** The transactions of a run of a job. */
export const JOB_STEPS = {
  start: (request) => writes('cas', '/nodes/')(request) && !writes('cas', '/tally')(request),
  /** With the release of the slots. */
  finish: (request) => writes('cas', '/nodes/')(request) && writes('set', '/.runs/')(request),
  /** Without. */
  alone: (request) => writes('cas', '/tally')(request) && !writes('set', '/.runs/')(request),
} as const satisfies Record<string, Match>;

const clock = {
  ...{ now: Date.now, monotonicMs: () => performance.now(), earliest: Date.now, latest: Date.now },
  sleep: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
};
const { signal } = new AbortController();

export interface JobOptions {
  /** Of the task's file. */
  readonly options?: string;
  /** A second group, after the first by path. */
  readonly also?: string;
  readonly targets?: readonly Target[];
  readonly spec?: Partial<Spec>;
  /** Its task is that of this other job: the same file. */
  readonly like?: { readonly folder: string };
  /** The value of the parameter v. */
  readonly param?: string;
  /** Unless given, the first target has accepted. */
  readonly accepts?: boolean;
}

let count = 0;

/** A job for the group `name` whose task is a shell's script, with a parameter that is given as `v`. */
export async function jobFor(agent: Agent, name: string, script: string, options: JobOptions = {}) {
  const { folder: own, pid } = stage();
  const { param = 'x', like } = options;
  const folder = like?.folder ?? own;
  const tasks = join(folder, 'tasks.d');
  const state = join(folder, 'state');
  mkdirSync(tasks, { mode: 0o755, recursive: true });
  const lines = [
    `command = ["/bin/sh", "-c", ${JSON.stringify(script.replaceAll('FOLDER', folder))}, "sh", "{v}"]`,
    ...[
      'params.v = { match = "[a-z]+", default = "x" }',
      `group = "${[name, ...(options.also === undefined ? [] : [options.also])].join(',')}"`,
      options.options ?? '',
    ],
  ];
  writeFileSync(join(tasks, 't.toml'), lines.join('\n'), { mode: 0o600 });
  const ref = { principal: 'ops', id: `j${(count += 1)}` };
  const consul: Consul = connect(consulSettings(agent.env), { clock, emit: () => undefined });
  const common = { consul, prefix: 'runlock', deps: { clock, random: Math.random }, signal, ref };
  const { targets = [['node1', 0]] } = options;
  const spec = {
    ...{ nonce: 'n1', task: 't', params: { v: param }, home: name },
    ...{ maxFailures: 0, offline: 'skip' as const, pauseMs: 0, by: 'test', at: new Date().toISOString() },
    ...{ until: new Date(Date.now() + 3_600_000).toISOString(), ...options.spec },
  } as const;
  await startJob(common, { ref, spec, targets });
  const of = (node: string) => ({ ...common, node });
  const [[first] = ['node1']] = targets;
  if (options.accepts !== false) await acceptTarget(of(first));
  const look = async (node = first): Promise<SeenTarget> => {
    const seen = await lookAt(of(node), of(node), { signal });
    if (seen.kind !== 'target') throw new Error(`the job is ${seen.kind}`);
    return seen.target;
  };
  return {
    ...{
      ref,
      folder,
      pid,
      state,
      look,
      group: groupOf(agent, name),
      ledgerFile: join(state, 'jobs/ops', ref.id),
    },
    /** As the agent starts it. */
    run: (env: Readonly<Record<string, string>> = {}, ...more: string[]) =>
      startRunlock(
        agent,
        [
          ...['task', 'run', 't', '--param', `v=${param}`, '--tasks-dir', tasks],
          ...['--job', `ops/${ref.id}`, '--state-dir', state, ...more],
        ],
        { env },
      ),
    /** The same task, as cron would. */
    byHand: () => startRunlock(agent, ['task', 'run', 't', '--param', `v=${param}`, '--tasks-dir', tasks]),
    accept: (node = first) => acceptTarget(of(node)),
    end: (node: string, request: EndRequest) => endTarget(of(node), request),
    stop: (wish: Stop) => stopJob({ ...common, home: spec.home }, wish),
    document: async (node = first): Promise<TargetDocument | undefined> => (await look(node)).document?.value,
    ledger: (): Record<string, unknown> =>
      JSON.parse(readFileSync(join(state, 'jobs/ops', ref.id), 'utf8')) as Record<string, unknown>,
    close: () => consul.close(),
  };
}
