// Which targets come when: canaries, steps, the others; whatever their agents are.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { amountOf, amountOfText, amountText, planTargets } from '../../src/jobs/plan.ts';
import type { Amount, Candidate, Plan } from '../../src/jobs/plan.ts';
import { NO_STAGE } from '../../src/jobs/stage.ts';

const count = (number: number): Amount => ({ kind: 'count', count: number });
const percent = (number: number): Amount => ({ kind: 'percent', percent: number });
const ready = (...names: readonly string[]): Candidate[] =>
  names.map((node) => ({ node, agent: 'ready' as const }));
const hundred = ready(...Array.from({ length: 100 }, (_, i) => `n${String(i).padStart(3, '0')}`));
const sizes = (targets: ReturnType<typeof planTargets>) => {
  const found: number[] = [];
  for (const [, stage] of targets) if (stage !== NO_STAGE) found[stage] = (found[stage] ?? 0) + 1;
  return found;
};
const plan = (more: Partial<Plan>): Plan => ({ offline: 'wait', ...more });

describe('stages', () => {
  test('are one, without anything asked; in the order of names', () => {
    expect(planTargets(ready('c', 'a', 'b'), plan({}))).toEqual([
      ['a', 0],
      ['b', 0],
      ['c', 0],
    ]);
  });

  test.each([
    ['a canary', { canary: count(1) }, [1, 99]],
    ['a part of them', { canary: percent(5) }, [5, 95]],
    [
      'steps, which count what came before',
      { canary: count(1), steps: [percent(10), percent(50)] },
      [1, 9, 40, 50],
    ],
    [
      'steps that are reached already',
      { canary: count(20), steps: [percent(10), percent(50)] },
      [20, 30, 50],
    ],
    ['a step of all', { steps: [count(7), percent(100)] }, [7, 93]],
    ['more than there are', { canary: count(500) }, [100]],
  ])('of %s', (_, more, expected) => {
    expect(sizes(planTargets(hundred, plan(more)))).toEqual(expected);
  });

  test('begin with nodes whose agent serves them, and wait last for those that are away', () => {
    const nodes: Candidate[] = [
      { node: 'a', agent: 'offline' },
      { node: 'b', agent: 'paused' },
      ...ready('c', 'd'),
    ];
    expect(planTargets(nodes, plan({ canary: count(1) }))).toEqual([
      ['c', 0],
      ['d', 1],
      ['b', 1],
      ['a', 1],
    ]);
    // No more canaries than there are agents that serve them.
    expect(planTargets(nodes, plan({ canary: count(3) })).filter(([, stage]) => stage === 0)).toEqual([
      ['c', 0],
      ['d', 0],
    ]);
    for (const offline of ['skip', 'fail'] as const)
      expect(planTargets(nodes, { canary: count(1), offline })).toEqual([
        ['c', 0],
        ['d', 1],
        ['b', 1],
        ['a', NO_STAGE],
      ]);
  });

  test('hold each target once, none is empty, and canaries have an agent', () => {
    const amounts = fc.oneof(
      fc.integer({ min: 1, max: 40 }).map(count),
      fc.integer({ min: 1, max: 100 }).map(percent),
    );
    const plans = fc.record(
      {
        canary: amounts,
        steps: fc.array(amounts, { maxLength: 5 }),
        offline: fc.constantFrom('wait', 'skip', 'fail'),
      },
      { requiredKeys: ['offline'] },
    );
    const agents = fc.array(fc.constantFrom('ready', 'paused', 'offline'), { minLength: 1, maxLength: 60 });
    fc.assert(
      fc.property(agents, plans, (kinds, asked) => {
        const nodes = kinds.map((agent, i) => ({ node: `n${i}`, agent }));
        const targets = planTargets(nodes, asked);
        expect(targets.map(([node]) => node).sort()).toEqual(nodes.map(({ node }) => node).sort());
        const found = sizes(targets);
        expect([...found].every((size) => size > 0)).toBe(true);
        const kindOf = new Map(nodes.map(({ node, agent }) => [node, agent]));
        for (const [node, stage] of targets)
          expect(stage === NO_STAGE).toBe(kindOf.get(node) === 'offline' && asked.offline !== 'wait');
        // A stage is never for who is away while somebody who is there comes later.
        const order = targets.filter(([, stage]) => stage !== NO_STAGE).map(([node]) => kindOf.get(node));
        expect(order).toEqual([...order].sort((a, b) => rank(a) - rank(b)));
        if (asked.canary && kinds.includes('ready'))
          for (const [node, stage] of targets)
            if (stage === 0 && found.length > 1 && found[0] === amountOf(asked.canary, order.length))
              expect(kindOf.get(node)).toBe('ready');
      }),
    );
  });
});

const rank = (agent: string | undefined) => ['ready', 'paused', 'offline'].indexOf(agent ?? '');

test('a part is never nobody and never more than all; its text is what it was', () => {
  expect([1, 10, 11, 100].map((each) => amountOf(percent(10), each))).toEqual([1, 1, 2, 10]);
  expect(amountOf(count(5), 3)).toBe(3);
  for (const amount of [count(12), percent(25)]) expect(amountOfText(amountText(amount))).toEqual(amount);
});
