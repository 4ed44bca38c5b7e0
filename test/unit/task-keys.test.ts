// What a task's file says for the agent: who may ask for it, what starts it by itself, and what others may know of it.
import { describe, expect, test } from 'vitest';
import { readStatements } from '../../src/cli/config/statements.ts';
import { parseCondition } from '../../src/conditions/parse.ts';
import { announce, checkTask } from '../../src/agent/task/announce.ts';
import { toTask } from '../../src/agent/task/definition.ts';
import { fillNoop } from '../../src/agent/task/parameters.ts';
import { renderTask } from '../../src/output/tasks.ts';
import { viewOf } from '../../src/commands/task/view.ts';

const COMMAND = 'command = ["/bin/a"]\n';

const define = (text: string) =>
  toTask(
    { name: 'chef', file: 't/chef.toml' },
    readStatements('t/chef.toml', COMMAND + text).filter(({ kind }) => kind === 'value'),
  );

const inGroups = (...groups: string[]) => ({
  groups: groups.map((group, i) => ({
    group,
    slots: 3 - i,
    hold: i === 2 ? ('none' as const) : ('forever' as const),
  })),
});

describe('a trigger', () => {
  test('has what the file says, and else what is safe', () => {
    const plain = { debounceMs: 0, minIntervalMs: 0, onFirst: 'run', perHour: 6 };
    expect(define('').trigger).toBeUndefined();
    expect(define('on = []').trigger).toBeUndefined();
    expect(define('on = "state:a"').trigger).toEqual({ ...plain, on: [parseCondition('state:a')] });
    expect(define('max_age = "12h"').trigger).toEqual({ ...plain, on: [], maxAgeMs: 43_200_000 });
    const all = `on = ["state:web/backends", "not:idle:prod/db", "state:web/backends"]
debounce = "10s"
min_interval = "1m"
max_age = "1d"
on_first = "skip"
triggers_per_hour = 12`;
    expect(define(all).trigger).toEqual({
      on: [parseCondition('state:web/backends'), parseCondition('not:idle:prod/db')],
      ...{ debounceMs: 10_000, minIntervalMs: 60_000, maxAgeMs: 86_400_000, onFirst: 'skip', perHour: 12 },
    });
  });

  test.each([
    [
      ":2: on: 'stat:a': character 1: unknown kind of condition 'stat'; did you mean 'state:'?",
      'on = "stat:a"',
    ],
    [':2: on: write a list of texts in quotes, as in ["state:web/backends"]', 'on = [1]'],
    [':2: on: write a list of texts', 'on.x = "state:a"'],
    [':3: debounce: not a duration; write it like 90s', 'on = "state:a"\ndebounce = 10'],
    [':2: min_interval: not a duration', 'min_interval = "soon"'],
    [':2: max_age: must be greater than 0', 'max_age = "0"'],
    [':2: max_age: longer than a year', 'max_age = "53w"'],
    [':2: on_first: write "run" or "skip"', 'on_first = true'],
    [':2: triggers_per_hour: write a whole number from 1 to 3600', 'triggers_per_hour = 0'],
    [':2: triggers_per_hour: write a whole number', 'triggers_per_hour = 1.5'],
    [':2: triggers_per_hour: write a whole number', 'triggers_per_hour = "6"'],
    [':2: debounce, min_interval, on_first and triggers_per_hour are for', 'debounce = "1s"\non = []'],
    [':2: debounce: not a duration', 'debounce.x = "1s"'],
  ])('%s', (said, text) => {
    expect(() => define(text)).toThrow(`t/chef.toml${said}`);
  });

  test('on what its own runs change is refused, with what to name instead', () => {
    for (const kind of ['good:db01', 'not:good:*', 'active:db01', 'idle:', 'blocked:']) {
      const own = kind.endsWith(':') ? `${kind}prod/web` : `${kind}@prod/web`;
      const other = own.replace('prod/web', 'prod/db');
      const of = (text: string) => () => {
        checkTask(define(`on = ["state:a", "${text}"]`), inGroups('rack/r4', 'prod/web'));
      };
      expect(of(own)).toThrow(`t/chef.toml: on: '${own}' is about runs of prod/web, in which this task runs`);
      expect(of(other)).not.toThrow();
      if (!kind.endsWith(':'))
        expect(of(kind)).toThrow(`'${kind}' names no group, which means the group of this task, so each`);
    }
    const rest = define('on = ["state:prod/web", "healthy:web", "frozen:prod/web", "agent:web01"]');
    expect(() => {
      checkTask(rest, inGroups('prod/web'));
    }).not.toThrow();
  });
});

describe('a request', () => {
  test('is for the principals of the file; a name that is none is refused', () => {
    expect(define('').allow).toEqual([]);
    expect(define('allow = ["ops", "ci", "ops"]').allow).toEqual(['ops', 'ci']);
    expect(define('allow = "ops"').allow).toEqual(['ops']);
    for (const bad of ['', '../ops', 'a/b', '.ops', '*', 'a'.repeat(65)])
      expect(() => define(`allow = ["${bad}"]`)).toThrow(`:2: allow: '${bad}' is not a principal's name`);
    expect(() => define('allow = true')).toThrow(':2: allow: write a list of texts in quotes, as in ["ops"');
  });

  test('may only try, where the file has a command for that', () => {
    const task = define('noop = ["/bin/b", "-n", "{x}"]\nparams.x = { match = "[a-z]+" }');
    expect(fillNoop(task, new Map([['x', 'y']]))).toEqual(['/bin/b', '-n', 'y']);
    expect(() => fillNoop(task, new Map([['x', '1']]))).toThrow("parameter x: '1' is not allowed");
    expect(() => fillNoop(define(''), new Map())).toThrow('task chef has no noop command; write noop = [');
    expect(() => define('noop = "/bin/b"')).toThrow(':2: noop is a list of texts: noop = [');
    expect(() => define('noop = ["b"]')).toThrow(":2: noop: 'b' is not an absolute path");
    expect(() => define('noop = ["/b", "{x}"]')).toThrow(':2: noop: {x} is not a parameter');
  });

  test("shows the output's end, unless the file says no", () => {
    expect(define('').tail).toBe(true);
    expect(define('tail = false').tail).toBe(false);
    expect(() => define('tail = "no"')).toThrow(':2: tail: write true or false, without quotes');
    expect(() => define('tail.x = true')).toThrow(':2: tail: write true or false');
  });

  test.each([
    // 6 operations a group at the end, 1 a state, and 6 beside them, of 64.
    [9, 4, 0, true],
    [9, 5, 0, false],
    [9, 0, 43, true],
    [9, 0, 44, false],
  ])('in %i groups, with %i states and %i conditions: has room is %s', (groups, states, when, fits) => {
    const names = [...Array(groups).keys()].map((each) => `g${each}`);
    const publish = [...Array(states).keys()].map((each) => ({ path: `s${each}`, value: '1' }));
    const conditions = [...Array(when).keys()].map((each) => parseCondition(`state:w${each}`));
    const run = { ...inGroups(...names), publish, when: conditions };
    for (const asked of ['allow = ["ops"]', 'on = "state:a"']) {
      const check = () => {
        checkTask(define(asked), run);
      };
      if (fits) expect(check).not.toThrow();
      else expect(check).toThrow(/t\/chef\.toml: a run .* needs 65 operations in one transaction/);
    }
    expect(() => {
      checkTask(define(''), run);
    }).not.toThrow();
  });
});

test('others may know all of a task but its command; its home is the first group by path', () => {
  const task = define(`description = "d"
params.x = { match = "a", default = "a" }
noop = ["/a", "{x}"]
allow = ["ops"]
on = ["state:a", "not:idle:prod/db"]`);
  const run = {
    ...inGroups('rack/r4', 'prod/web', 'Rack'),
    when: [parseCondition('state:b')],
    gate: { services: ['web'] },
    publish: [{ path: 'p', value: '1' }],
    during: [
      { path: 'd', value: '1' },
      { path: 'p', value: '2' },
    ],
  };
  expect(announce(task, run)).toEqual({
    ...{ name: 'chef', description: 'd', groups: ['Rack', 'prod/web', 'rack/r4'], allow: ['ops'] },
    ...{ params: ['x'], on: ['state:a', 'not:idle:prod/db'], when: ['state:b'], publish: ['p', 'd'] },
    ...{ slots: 1, keptSlots: 2, noop: true, services: ['web'] },
  });
  expect(announce(define(''), { groups: [{ group: 'a', slots: 4, hold: 'none' }] })).toEqual({
    ...{ name: 'chef', groups: ['a'], allow: [], params: [], on: [], when: [], publish: [], slots: 4 },
  });
});

test('what the file says for the agent is shown', () => {
  const task = define(`noop = ["/a", "-n"]
allow = ["ops", "ci"]
tail = false
on = ["state:a", "not:idle:prod/db"]
debounce = "10s"
min_interval = "1m"
max_age = "12h"
on_first = "skip"`);
  const view = viewOf({ task, options: { path: '', general: new Map(), groups: new Map() } });
  expect(view.trigger).toMatchObject({ on: ['state:a', 'not:idle:prod/db'], debounceMs: 10_000 });
  expect(renderTask(view)).toBe(`task:        chef
file:        t/chef.toml
command:     /bin/a
noop:        /a -n
allow:       ops, ci
tail:        output is not shown to others
on:          state:a
on:          not:idle:prod/db
starts:      at most 6 an hour; 10s after the last change; at least 1m apart; when the last good run is older than 12h; not for what is true at the first look
`);
});
