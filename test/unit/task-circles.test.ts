// Tasks that start each other: what each changes, and what starts it, over the tasks of all agents.
import { describe, expect, test } from 'vitest';
import { circleText, circlesOf } from '../../src/agent/task/circles.ts';
import type { AgentTask } from '../../src/jobs/documents.ts';

const task = (name: string, more: Partial<AgentTask> = {}): AgentTask => ({
  name,
  ...{ groups: [`g/${name}`], allow: [], params: [], on: [], when: [], publish: [] },
  ...more,
});

const circles = (tasks: Readonly<Record<string, readonly AgentTask[]>>) =>
  circlesOf(Object.entries(tasks).map(([node, of]) => ({ node, tasks: of }))).map(circleText);

describe('tasks are a circle', () => {
  test('if each publishes what starts the next, on any nodes, however long the way', () => {
    const a = task('a', { on: ['state:z=1'], publish: ['x'] });
    const b = task('b', { on: ['state:n', 'not:state:x=1'], publish: ['y'] });
    const c = task('c', { on: ['state:y!=2'], publish: ['z', 'n'] });
    expect(circles({ n1: [a], n2: [b], n3: [c] })).toEqual([
      'a@n1 changes not:state:x=1, which starts b@n2 changes state:y!=2, which starts c@n3 changes state:z=1, which starts a@n1',
      'b@n2 changes state:y!=2, which starts c@n3 changes state:n, which starts b@n2',
    ]);
    expect(circles({ n1: [a], n2: [b] })).toEqual([]);
  });

  test('if one starts itself, by its state or on another node', () => {
    const own = task('a', { on: ['state:x'], publish: ['x'] });
    expect(circles({ n1: [own] })).toEqual(['a@n1 changes state:x, which starts a@n1']);
    expect(circles({ n1: [own], n2: [own], n3: [own] })).toEqual([
      'a@n1 (and on 2 more) changes state:x, which starts a@n1 (and on 2 more)',
    ]);
  });

  test.each([
    ['good:*@g/a', true],
    ['good:n1@g/a', true],
    ['active:n1@g/a', true],
    ['idle:g/a', true],
    ['not:blocked:g/a', true],
    ['good:n3@g/a', false],
    ['good:*@g/c', false],
    ['idle:g/c', false],
    ['frozen:g/a', false],
    ['healthy:a', false],
    ['agent:n1', false],
    ['newer:g/a', false],
  ])('by the runs of a group: %s is %s', (on, is) => {
    const found = circles({
      n1: [task('a', { on: ['state:x'] })],
      n2: [task('b', { on: [on], publish: ['x'] })],
    });
    expect(found).toHaveLength(is ? 1 : 0);
  });

  test('and what a run only waits for starts nothing', () => {
    expect(circles({ n1: [task('a', { when: ['state:x'], publish: ['x'] })] })).toEqual([]);
  });
});
