// A run that was stopped between its grant and the start of its command, for so long that others may follow.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import type { ExecDeps } from '../../src/runner/options.ts';
import { NO_NOTE } from '../../src/runner/run-note.ts';
import { superviseRun } from '../../src/runner/supervise.ts';
import { connect } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { acquire } from '../../src/lock/acquire.ts';
import { holdLease } from '../../src/lock/lease.ts';
import { startTime } from '../../src/process/process-tree.ts';
import { sentenceOf } from '../../src/events/sentence.ts';
import type { Emit } from '../../src/events/events.ts';
import { startAgent } from '../support/consul.ts';
import { runFilesInMemory } from '../support/run-files.ts';
import { stage } from '../support/stage.ts';

test.each([
  ['57.5 s after its grant, with hold none: nothing is started, the slot is free again', 57_500, 0, false],
  ['50 s after its grant, with hold none: there is time, and the command is started', 50_000, 0, true],
  [
    'stopped for 57.5 s once its lease was watched: nothing is started either',
    ...([0, 57_500, false] as const),
  ],
] as const)('%s', async (_, lateMs, stoppedMs, starts) => {
  await using agent = await startAgent();
  const { folder, runId, nonce } = stage();
  const said: string[] = [];
  const emit: Emit = (event) => void said.push(sentenceOf(event).message);
  const consul = connect(consulSettings(agent.env), { clock, emit });
  onTestFinished(() => consul.close());
  const self = { pid: process.pid, startTime: startTime(process.pid) ?? '', bootId: 'boot' };
  const host = {
    self: () => self,
    bootId: 'boot',
    startTime,
    hidden: () => false,
    place: () => Promise.resolve({ host: 'h' }),
    survivors: () => ({ pids: [], guarded: false }),
  };
  const deps: ExecDeps = {
    ...{ random: Math.random, host, emit, consul },
    clock: { ...clock, monotonicMs: () => clock.monotonicMs() + jumpedMs },
    env: { PATH: process.env['PATH'] },
    signals: { ignored: [], listen: () => undefined, onStop: () => () => undefined, stop: () => undefined },
    connectTo: () => Promise.reject(new Error('there is no other agent')),
    run: { id: runId, nonce },
    newId: () => 'change',
    runFiles: runFilesInMemory(),
    openTurn: () => ({
      ...{ look: () => ({ kind: 'mine' }), folder: () => undefined },
      ...{ lend: () => undefined, outOfQueue: () => undefined, leave: () => undefined },
    }),
    ...{ shareTerminal: false, inherited: () => [], uid: 0 },
    contained: { cgroup: () => undefined, fileLimit: () => undefined },
  };
  const { signal } = new AbortController();
  let jumpedMs = 0;
  const run = { id: runId, command: 'touch', runner: self, hold: 'none', slots: 1 } as const;
  const request = { prefix: 'runlock', group: 'late', node: 'web01', run, ttlMs: 10_000 };
  const acquired = await acquire({ consul, deps }, request, { signal, patience: signal, either: signal });
  if (acquired.kind !== 'granted') throw new Error('not granted');
  const grant = { ...acquired.grant, provedMs: acquired.grant.provedMs - lateMs };
  const lease = holdLease(grant, { ttlMs: 10_000, killAfterMs: 1_000 });
  // A timer that is due is not heard before what has come meanwhile, such as the grant in another group.
  jumpedMs = stoppedMs;
  const groups = [{ group: 'late', slots: 1, hold: 'none' }] as const;
  const result = await superviseRun(deps, [{ grant, lease, waitedMs: 0 }], {
    ...{ prefix: 'runlock', groups, wait: 0, splayMs: 0, killAfterMs: 1_000 },
    ...{ sessionTtlMs: 10_000, dryRun: false, command: 'touch', args: [join(folder, 'started')] },
    ...{ file: '/usr/bin/touch', meanings: { ok: [0], reboot: [] }, nonce },
    note: NO_NOTE,
  });
  expect(existsSync(join(folder, 'started'))).toBe(starts);
  expect(result.kind).toBe(starts ? 'ended' : 'lost');
  expect(said.join('\n')).toMatch(starts ? /^(?!.*too much time passed)/s : /too much time passed/);
  expect(await agent.kv.keys('runlock/late/.slot/')).toEqual([]);
});
