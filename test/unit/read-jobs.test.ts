// A list of jobs: of each all its targets, whatever has become of it, and what may not be read.
import { expect, test } from 'vitest';
import { stopJob } from '../../src/jobs/end.ts';
import { decodeSpec, encodeSpec } from '../../src/jobs/records.ts';
import { startJob } from '../../src/jobs/starter.ts';
import { readJobs } from '../../src/view/read-jobs.ts';
import { nowMs, place, spec } from '../support/jobs.ts';
import { instant, memoryConsul } from '../support/memory-consul.ts';

const ref = { principal: 'ops', id: 'deploy-1' };
const { keys, requests } = place('p');
const { signal } = new AbortController();

async function world(hidden?: string) {
  let isStarted = false;
  const memory = memoryConsul(
    () => 'answered',
    (key) => isStarted && hidden !== undefined && key.includes(hidden),
  );
  // The listing of principals, as Consul's `?keys&separator=/` has it.
  const indexOf = () => Promise.resolve({ names: ['p/.requests/ops/'], index: 1 });
  const consul = { ...memory.consul, indexOf };
  const of = { consul, prefix: 'p', deps: instant(nowMs), signal };
  const { task, params, home, pauseMs, until, by, at, nonce } = spec;
  const asked = {
    task,
    params,
    home,
    pauseMs,
    until,
    by,
    at,
    nonce,
    maxFailures: 0,
    offline: 'wait',
  } as const;
  await startJob(
    { ...of, consul: memory.consul },
    {
      ref,
      spec: asked,
      targets: [
        ['web01', 0],
        ['web02', 0],
      ],
    },
  );
  isStarted = true;
  const read = (more: { isCounted?: boolean } = {}) =>
    readJobs(consul, { prefix: 'p', nowMs, ...more }, { signal });
  return { ...memory, of, read };
}

test('what a stop has kept from starting is not queued any more', async () => {
  const { of, read } = await world();
  expect((await read()).jobs).toMatchObject([{ state: 'open', total: 2, states: { queued: 2 } }]);
  await stopJob({ ...of, ref, home: spec.home }, { why: 'cancelled' });
  expect((await read()).jobs).toMatchObject([{ state: 'stopped', total: 2, states: { cancelled: 2 } }]);
  expect((await read({ isCounted: false })).jobs).toMatchObject([{ state: 'stopped', states: {} }]);
});

test('targets that are not written yet are queued, as those that are', async () => {
  const { put, read } = await world();
  const key = requests.spec(ref.id);
  const before = decodeSpec({ key, value: encodeSpec(spec) });
  // Three of a second list are to come.
  put(key, encodeSpec({ ...before, stages: [5], chunks: 2, filled: 1 }));
  put(keys.stage, JSON.stringify({ v: 1, kind: 'fill', rev: 0 }));
  expect((await read()).jobs).toMatchObject([{ state: 'incomplete', total: 5, states: { queued: 5 } }]);
});

test('a job whose group may not be read is listed without its state', async () => {
  const { read } = await world('/.jobs/');
  const { jobs, problems } = await read();
  expect(jobs).toMatchObject([{ job: 'ops/deploy-1', total: 2, states: {} }]);
  expect(jobs[0]).not.toHaveProperty('state');
  expect(problems).toEqual([]);
});
