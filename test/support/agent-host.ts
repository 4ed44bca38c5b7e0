// A host with an agent and one task, whose runs note themselves, and the verdict on all of its jobs.
import { readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { expect } from 'vitest';
import type { Cursor } from '../../src/jobs/cursor.ts';
import { askFor } from './asked-jobs.ts';
import type { Asked } from './asked-jobs.ts';
import type { Agent } from './consul.ts';
import { observeJob } from './history/job-observer.ts';
import type { JobObserver } from './history/job-observer.ts';
import { judgeJob } from './history/jobs.ts';
import { uptimeMs } from './history/history.ts';
import { pretendedHost } from './pretended-host.ts';
import { eventually, scene, untilGone } from './processes.ts';
import { spawnRunlock } from './program.ts';
import type { Spawned } from './program.ts';
import { agentIn, endRuns } from './runlock-agent.ts';
import type { AgentSetup } from './runlock-agent.ts';

// Notes its process id and a beat every 100 ms in a file of its own, until it is told to end, and how.
const SCRIPT = [
  'file=$0/$1.$RUNLOCK_RUN_ID.trace',
  'note() { read -r up _ </proc/uptime; echo "$$ $up" >>"$file"; }',
  'exec 9<>"$0/never"',
  'note',
  'until [ -e "$0/go" ]; do read -rt 0.1 -u 9; note; done',
  'read -r code <"$0/go"; exit "$code"',
].join('\n');

/** A run of the task, as its command noted it. Times are milliseconds since boot. */
export interface Trace {
  /** The id of its job; `x` if a change asked for it. */
  readonly job: string;
  readonly run: string;
  readonly pid: number;
  readonly startMs: number;
  readonly lastMs: number;
}

export interface HostSetup extends Pick<AgentSetup, 'through' | 'program'> {
  /** Lines of the task's file. */
  readonly more?: string;
  /** Unless given, one of the node's own. */
  readonly group?: string;
}

let count = 0;

export function agentHost(
  consul: Agent,
  node: string,
  { more = '', group = `fa/${node}`, ...setup }: HostSetup = {},
) {
  const place = scene();
  const { folder } = place;
  const host = pretendedHost(folder, node);
  const spawned: Spawned[] = [];
  const spawn = (...words: Parameters<typeof spawnRunlock>) => {
    const running = spawnRunlock(...words);
    spawned.push(running);
    return running;
  };
  const env = { ...host.env, RUNLOCK_REQUESTS: 'trust-everybody' };
  const on = agentIn({ ...place, start: spawn }, { ...setup, agent: consul, node, env });
  writeFileSync(`${folder}/never`, '');
  const command = JSON.stringify(['/bin/bash', '-c', SCRIPT, folder, '{job}']);
  on.write(
    't.toml',
    `command = ${command}\nparams.job = { match = "[a-z0-9-]+", default = "x" }\nallow = ["ops"]\ngroup = "${group}"\n${more}\n`,
  );
  const observers = new Map<string, JobObserver>();
  const traces = (): Trace[] =>
    readdirSync(folder).flatMap((name) => {
      const [, job = '', run = ''] = /^([^.]+)\.([^.]+)\.trace$/.exec(name) ?? [];
      const lines = job === '' ? [] : readFileSync(`${folder}/${name}`, 'utf8').split('\n').slice(0, -1);
      const [first, last] = [lines[0]?.split(' '), lines.at(-1)?.split(' ')];
      if (!first || !last) return [];
      const [startMs, lastMs] = [Number(first[1]) * 1_000, Number(last[1]) * 1_000];
      return [{ job, run, pid: Number(first[0]), startMs, lastMs }];
    });
  const of = (id: string) => traces().filter(({ job }) => job === id);
  const agents: Spawned[] = [];
  const changesMs: number[] = [];
  const start = async () => {
    on.start();
    const running = spawned.at(-1);
    if (!running) throw new Error('nothing was started');
    agents.push(running);
    await running.says(/is ready/, 45_000);
    return running;
  };
  return {
    ...{ ...on, group, node, start, traces },
    clock: host,
    /** A job for this node alone. */
    ask: async (asked: Partial<Asked> = {}) => {
      const id = asked.id ?? `${node}-${(count += 1)}`;
      observers.set(id, observeJob(consul, `runlock/${group}/.jobs/ops/${id}/`));
      const params = { job: id };
      const job = await askFor(consul, group, { targets: [[node, 0]], params, ...asked, id });
      return {
        ...job,
        runs: () => of(id).length,
        /** Resolves with its run, once its command has begun. */
        begun: () =>
          eventually(() => {
            const [run] = of(id);
            if (!run) throw new Error(`${id} has not begun: ${agents.at(-1)?.stderr()}`);
            return run;
          }, 45_000),
      };
    },
    /** Lets all commands end, those that begin later, too. */
    finish: (code = 0) => {
      writeFileSync(`${folder}/go.new`, `${code}\n`);
      renameSync(`${folder}/go.new`, `${folder}/go`);
    },
    owner: async () => {
      const entry = await consul.kv.get(`runlock/${group}/.slot/0/owner`);
      return entry && (JSON.parse(entry.Value) as { pid: number; node: string; state: string; run: string });
    },
    /** Consul's session of the agent; undefined: its key is not locked. */
    session: async () => (await consul.kv.get(on.key))?.Session,
    /** Ends the session of the run that has the slot, as its TTL would. */
    expire: async () => {
      const lock = await consul.kv.get(`runlock/${group}/.slot/0/lock`);
      await consul.http('PUT', `/v1/session/destroy/${lock?.Session}`);
    },
    /** All that runs on it is gone at once, and what starts then is of another boot. */
    reboot: async () => {
      const last = agents.at(-1);
      last?.signal('SIGKILL');
      await last?.ended;
      endRuns(on.state);
      for (const { pid } of traces()) await untilGone(pid, 45_000);
      host.boot();
    },
    /** Sets a state that the task's trigger may be about. */
    change: async (path: string, value: string) => {
      changesMs.push(uptimeMs());
      const { status, stderr } = await spawn(consul, ['state', 'set', path, value]).ended;
      expect(status, stderr).toBe(0);
    },
    /** The runs that a change has started. */
    triggered: () => of('x').length,
    /** What the task's last good run has seen. */
    cursor: async () => {
      const entry = await consul.kv.get(`runlock/.triggers/${node}/t`);
      return entry && (JSON.parse(entry.Value) as Cursor);
    },
    /**
     * That the promises were kept which concern jobs (4, 5, 6, 8) in all that was asked for, and changes (7, 9), where all
     * runs were good.
     */
    keepsPromises: async () => {
      for (const [id, observer] of observers) {
        const looks = await observer.seen();
        const commands = traces().map(({ job, run, startMs, lastMs }) => ({
          ...{ node, run, startMs, lastMs },
          ...(job === id && ({ isOfJob: true } as const)),
        }));
        expect(judgeJob({ commands, looks, named: [node], allowing: [node] }), id).toEqual([]);
      }
      const runs = of('x').map(({ startMs }) => ({ startMs, isGood: true, chain: [`t@${node}`] }));
      const triggers = [{ task: 't', changesMs, runs: runs.sort((a, b) => a.startMs - b.startMs) }];
      const noJob = { commands: [], looks: [], named: [], allowing: [] };
      expect(judgeJob({ ...noJob, triggers })).toEqual([]);
    },
    [Symbol.asyncDispose]: async () => {
      for (const running of spawned) running.end();
      await Promise.allSettled(spawned.map(({ ended }) => ended));
      // Their guards end the commands.
      endRuns(on.state);
      await Promise.all(traces().map(({ pid }) => untilGone(pid, 45_000)));
      await Promise.all([...observers.values()].map((each) => each.stop()));
      place.clean();
    },
  };
}

export type AgentHost = ReturnType<typeof agentHost>;
