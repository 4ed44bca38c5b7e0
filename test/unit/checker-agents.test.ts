// The judge of a soak with agents, judged itself: a history that keeps all promises, and each promise broken in it.
import { describe, expect, test } from 'vitest';
import type { JobLook } from '../support/history/jobs.ts';
import type { Command } from '../support/soak/agents/commands.ts';
import { countStates, judgeAgents } from '../support/soak/agents/judge.ts';
import type { AgentsHistory } from '../support/soak/agents/judge.ts';
import type { RecordedRun, StateChange } from '../support/soak/agents/observed.ts';
import { describeAgentsPlan, planAgents } from '../support/soak/agents/plan.ts';
import type { JobPlan } from '../support/soak/agents/plan.ts';

const { nodes } = planAgents({ seed: 1, minutes: 1, nodes: 5 });
const names = nodes.map(({ name }) => name);
const [head = '', second = ''] = names;

const job: JobPlan = {
  ...{ principal: 'ops', id: 'j1', role: 'a', nodes: [head], task: 'deploy', beats: 1, code: 0 },
  ...{ expiresMs: 60_000, isUnfit: false, watch: false },
};
const name = 'ops/j1';
const run = (node: string, task: string, startMs: number, more: Partial<Command> = {}): Command => ({
  ...{ node, task, run: `${task}-${node}-${startMs}`, startMs, lastMs: startMs + 500, exitCode: 0 },
  chain: task === 'react' ? [`react@${node}`] : [],
  ...more,
});
const recorded = (role: string, { node, run: id, startMs }: Command, outcome = 'succeeded'): RecordedRun => ({
  ...{ group: `soak/${role}`, node, run: id, outcome, seenMs: startMs + 600 },
});
const changed = (path: string, ms: number, by?: Command): StateChange => ({
  ...{ path, change: `c-${path}-${ms}`, value: 'v1', fromMs: ms, seenMs: ms + 20 },
  ...(by && { run: by.run }),
});
const look = (
  state: string,
  more: { run?: string; tally?: Record<string, number>; kind?: string } = {},
): JobLook => {
  const { tally = {}, kind = 'open' } = more;
  const value = { state, ...(more.run !== undefined && { run: more.run }) };
  return { stage: { index: 1, value: { kind } }, tally, targets: new Map([[head, { index: 2, value }]]) };
};

const deploy = run(head, 'deploy', 1_000, { job: name });
const b = run(second, 'react', 2_000);
const later = ['c', 'd', 'e'].map((role, i) =>
  run(names[i + 2] ?? '', 'react', 3_000 + 1_000 * i, { chain: [role] }),
);
const [c = b, d = b, e = b] = later;
const good: AgentsHistory = {
  ...{ nodes, hits: [] },
  commands: [deploy, b, c, d, e],
  jobs: [
    {
      ...{ name, job },
      looks: [
        look('accepted'),
        look('running', { run: deploy.run }),
        look('good', { run: deploy.run, tally: { good: 1 }, kind: 'done' }),
      ],
    },
  ],
  states: [
    changed(`soak/a/${head}`, 1_500, deploy),
    changed(`soak/b/${second}`, 2_500, b),
    changed(`soak/c/${c.node}`, 3_500, c),
    changed(`soak/d/${d.node}`, 4_500, d),
    changed(`soak/e/${e.node}`, 5_500, e),
  ],
  records: [recorded('a', deploy), recorded('b', b), recorded('c', c), recorded('d', d), recorded('e', e)],
};
const ended = (state: string, more: Partial<Command> | undefined): AgentsHistory => ({
  ...good,
  commands: [...(more ? [{ ...deploy, ...more }] : []), b, c, d, e],
  jobs: [
    {
      ...{ name, job },
      looks: [look(state, { ...(more && { run: deploy.run }), tally: { [state]: 1 }, kind: 'done' })],
    },
  ],
});

test('a history that keeps its promises breaks none', () => {
  expect(judgeAgents(good)).toEqual([]);
  expect([...countStates(good.jobs)]).toEqual([['good', 1]]);
});

test('a run that was killed may be lost, and one that failed has failed', () => {
  const hits = [{ kind: 'kill-run both ops/j1', node: head, fromMs: 1_100, untilMs: 1_100 }];
  const states = [changed('soak/in/0', 1_500), ...good.states.slice(1)];
  const killed: Partial<Command> = { exitCode: 9 };
  expect(judgeAgents({ ...ended('lost', killed), hits, states })).toEqual([]);
  expect(judgeAgents({ ...ended('failed', killed), states })).toEqual([]);
});

describe('a history is rejected', () => {
  const again = { ...deploy, run: 'again', startMs: 9_000, lastMs: 9_500 };
  const more = (...commands: Command[]): AgentsHistory => ({
    ...good,
    commands: [...good.commands, ...commands],
  });
  const withState = (...states: StateChange[]): AgentsHistory => ({
    ...good,
    states: [...good.states, ...states],
  });
  const extra = run(second, 'react', 10_000);
  const needless: AgentsHistory = {
    ...more(extra, run(second, 'react', 19_000)),
    records: [...good.records, recorded('b', extra)],
  };
  const lateC = run(c.node, 'react', 9_000);
  const bad: [string, RegExp, AgentsHistory][] = [
    ['where a target started twice', /promise 5 .* started again/, more(again)],
    ['where two runs of a node overlap', /at once/, more(run(head, 'patch', 1_200, { run: 'other' }))],
    [
      'where a run is of a job that nobody asked for',
      /ran for ops\/j9/,
      more(run(head, 'deploy', 8_000, { job: 'ops/j9' })),
    ],
    ['where a good target has no command', /is good; its command: none/, ended('good', undefined)],
    ['where a good target failed', /is good; .* exit code 1/, ended('good', { exitCode: 1 })],
    ['where a failed target succeeded', /is failed/, ended('failed', {})],
    ['where a refused target ran', /is refused/, ended('refused', {})],
    ['where a target was lost, and nothing was done to it', /is lost.*nothing was done/, ended('lost', {})],
    [
      'where a cut from Consul that was too short made it lost',
      /is lost/,
      { ...ended('lost', {}), hits: [{ kind: 'network', node: head, fromMs: 1_000, untilMs: 3_000 }] },
    ],
    ['where nobody cancelled it', /is cancelled/, ended('cancelled', {})],
    [
      'where a job is open in the end',
      /the job is open in the end/,
      { ...good, jobs: [{ name, job, looks: [look('accepted')] }] },
    ],
    [
      'where the tally does not fit',
      /are counted/,
      { ...good, jobs: [{ name, job, looks: [look('good', { run: deploy.run, kind: 'done' })] }] },
    ],
    [
      'where a job ran that was never there',
      /was never there/,
      { ...good, jobs: [{ name, job, looks: [] }] },
    ],
    [
      'where no run followed a change',
      /did not run after state:soak\/in\/0/,
      withState(changed('soak/in/0', 7_000)),
    ],
    [
      'where the run that followed is not recorded as good',
      /did not run after state:soak\/a/,
      { ...good, records: good.records.filter((each) => each.run !== b.run) },
    ],
    [
      'where no run followed a round of good ones',
      /did not run after good:\*@soak\/c/,
      { ...more(lateC), records: [...good.records, recorded('c', lateC)], states: good.states },
    ],
    ['where a run followed nothing', /ran react at 19000, and nothing had changed/, needless],
    [
      'where a run that failed has published',
      /which did not succeed/,
      withState(changed(`soak/e/${e.node}`, 8_000, run(e.node, 'react', 7_000))),
    ],
  ];
  test.each(bad)('%s', (_, says, history) => {
    expect(judgeAgents(history).join('\n')).toMatch(says);
  });
});

describe('the plan', () => {
  const text = (seed: number) => describeAgentsPlan(planAgents({ seed, minutes: 10, nodes: 30 })).join('\n');

  test('is the same for the same seed, and another for another', () => {
    expect(text(7)).toBe(text(7));
    expect(text(8)).not.toBe(text(7));
  });

  test('has every kind of fault and request, for each of 30 nodes', () => {
    const plan = planAgents({ seed: 7, minutes: 10, nodes: 30 });
    expect(plan.nodes).toHaveLength(30);
    const kinds = new Set(plan.events.map(({ kind }) => kind));
    for (const kind of [
      'job',
      'start-again',
      'cancel',
      'watch',
      'rewrite',
      'input',
      'door',
      'spoil',
      'by-hand',
    ])
      expect(kinds).toContain(kind);
    for (const kind of [
      'end-agent',
      'stop-agent',
      'kill-run',
      'stop-run',
      'destroy-session',
      'pause',
      'reboot',
    ])
      expect(kinds).toContain(kind);
    for (const kind of ['pause-server', 'pause-agent', 'restart-agent', 'network', 'operate'])
      expect(kinds).toContain(kind);
    const asked = new Set(plan.events.flatMap((event) => (event.kind === 'job' ? event.job.nodes : [])));
    expect(asked.size).toBe(30);
  });
});
