import { describe, expect, test } from 'vitest';
import { gateRights, leastRights, stateRights } from '../../scripts/docs/rights.ts';
import { hclOf, rulesOf } from '../../src/commands/policy/rules.ts';
import type { PolicyGroup, PolicyRequest } from '../../src/commands/policy/rules.ts';
import { parseCondition } from '../../src/conditions/parse.ts';

type Given = Partial<Omit<PolicyRequest, 'groups'>> & { groups?: (Partial<PolicyGroup> | string)[] };

function policy({ groups = ['prod/web'], ...given }: Given) {
  const all = groups.map((each) => ({
    group: 'prod/web',
    when: [],
    published: [],
    ...(typeof each === 'string' ? { group: each } : each),
  }));
  const request = { prefix: 'runlock', role: 'node', states: [], principals: [], ...given } as const;
  return rulesOf({ ...request, groups: all }).map(hclOf);
}

/** To see what is asked of nodes. */
const ASKED = ['.agents', '.requests', '.triggers'].map(
  (folder) => `key_prefix "runlock/${folder}/" { policy = "read" }`,
);

const of = (when: (note: string) => boolean) =>
  gateRights.filter(([, note]) => when(note)).map(([rule]) => rule);

describe("a node's", () => {
  test('are those that docs/rights.md names, in each of its parts', () => {
    const node = 'web01';
    const services = ['web'];
    expect(policy({ node })).toEqual(leastRights);
    const sorted = (rules: readonly string[]) => [...rules].sort();
    const read = policy({ node, groups: [{ gate: { services } }] });
    expect(sorted(read)).toEqual(
      sorted([...leastRights, 'node_prefix "" { policy = "read" }', 'service "web" { policy = "read" }']),
    );
    const out = policy({ node, groups: [{ gate: { services, maintenance: 'service' } }] });
    expect(sorted(out)).toEqual(
      sorted([...leastRights, ...of((note) => !note.includes('--maintenance node'))]),
    );
    const whole = policy({ node, groups: [{ gate: { services, maintenance: 'node' } }] });
    // What a wider rule includes is left out.
    const wider = [
      'service "web" { policy = "write" }',
      'key "runlock/.gate/web" { policy = "write" }',
      'key_prefix "runlock/.gate/.out/web01/" { policy = "write" }',
    ];
    expect(sorted(whole)).toEqual(
      sorted([...leastRights, ...of(() => true).filter((rule) => !wider.includes(rule))]),
    );
  });

  test.each(
    // The other lines are commands, with their arguments.
    stateRights
      .flatMap(([what, rules]) => what.map((text) => ({ text, rules })))
      .filter(({ text }) => !text.includes(' ')),
  )('for the condition $text as docs/rights.md names them', ({ text, rules }) => {
    const with_ = policy({ node: 'web01', groups: [{ when: [parseCondition(text)] }] });
    expect(with_.filter((rule) => !leastRights.includes(rule)).sort()).toEqual(
      rules.filter((rule) => !leastRights.includes(rule.replace('"read"', '"write"'))).sort(),
    );
  });

  test('are for any node if none is named', () => {
    expect(policy({ groups: [{ gate: { services: ['auto'], maintenance: 'service' } }] })).toEqual([
      'session_prefix "" { policy = "write" }',
      ...leastRights.slice(1),
      'node_prefix "" { policy = "read" }',
      'service_prefix "" { policy = "write" }',
      'key_prefix "runlock/.gate/" { policy = "write" }',
    ]);
    expect(policy({ groups: [{ gate: { services: ['web'], maintenance: 'service' } }] })).toContain(
      'key_prefix "runlock/.gate/.out/" { policy = "write" }',
    );
  });
});

test('a rule that another one includes is left out, and never weakens it', () => {
  expect(policy({ node: 'n', groups: ['prod', 'prod/web', 'prod'], states: ['db/a', 'db/b'] })).toEqual([
    'session "n" { policy = "write" }',
    'key_prefix "runlock/prod/" { policy = "write" }',
    'key "runlock/.freeze" { policy = "write" }',
    'key_prefix "runlock/.state/db/" { policy = "write" }',
  ]);
  // To read it is no more than to write it; to write it is more than to read all.
  const when = [parseCondition('state:db/a'), parseCondition('good:x@prod/web')];
  expect(policy({ role: 'viewer', groups: [{ group: 'prod/web', when }], states: ['db/a'] })).toEqual([
    'key_prefix "runlock/prod/web/" { policy = "read" }',
    'key "runlock/prod/.freeze" { policy = "read" }',
    'key "runlock/.freeze" { policy = "read" }',
    'key_prefix "runlock/.state/" { policy = "read" }',
    ...ASKED,
    'key_prefix "runlock/.state/db/" { policy = "write" }',
  ]);
  expect(policy({ role: 'viewer', groups: [''], states: ['db/a'] })).toEqual([
    'key_prefix "runlock/" { policy = "read" }',
    'key_prefix "runlock/.state/db/" { policy = "write" }',
  ]);
});

test.each(['operator', 'viewer'] as const)('an %s may read every state for which runs may wait', (role) => {
  const rule = 'key_prefix "runlock/.state/" { policy = "read" }';
  expect(policy({ role, groups: ['prod'] })).toContain(rule);
  // A rule for all groups is for all states.
  expect(policy({ role, groups: [''] })).not.toContain(rule);
});

test('a group whose name another one begins with is another group', () => {
  expect(policy({ role: 'operator', groups: ['prod/web', 'prod/web2'], prefix: 'a/b' })).toEqual([
    'key_prefix "a/b/prod/web/" { policy = "write" }',
    'key "a/b/prod/.freeze" { policy = "read" }',
    'key "a/b/.freeze" { policy = "read" }',
    'key_prefix "a/b/.state/" { policy = "read" }',
    ...ASKED.map((rule) => rule.replace('runlock/', 'a/b/')),
    'key_prefix "a/b/prod/web2/" { policy = "write" }',
  ]);
});

describe("an agent's", () => {
  const [session = '', ...locks] = leastRights;

  test('are those of its runs, and what it needs to hear of requests and to say who it is', () => {
    expect(policy({ role: 'agent', node: 'web01', principals: ['ops', 'ci'], on: [] })).toEqual([
      ...[session, ...locks],
      'key "runlock/.agents/web01" { policy = "write" }',
      'key_prefix "runlock/.requests/" { policy = "read" }',
      'key_prefix "runlock/.requests/ops/inbox/web01/" { policy = "write" }',
      'key_prefix "runlock/.requests/ci/inbox/web01/" { policy = "write" }',
      'key_prefix "runlock/.triggers/web01/" { policy = "write" }',
    ]);
  });

  test('are for any node if none is named, and for no requests and triggers that it has no use for', () => {
    expect(policy({ role: 'agent', principals: ['ops'], on: [] }).slice(-4)).toEqual([
      'key_prefix "runlock/.agents/" { policy = "write" }',
      'key_prefix "runlock/.requests/" { policy = "read" }',
      'key_prefix "runlock/.requests/ops/inbox/" { policy = "write" }',
      'key_prefix "runlock/.triggers/" { policy = "write" }',
    ]);
    expect(policy({ role: 'agent', node: 'web01' })).toEqual([
      ...[session, ...locks, 'key "runlock/.agents/web01" { policy = "write" }'],
    ]);
  });

  test('cover what its triggers look at', () => {
    const on = ['state:db/schema', 'good:*@prod/db', 'healthy:web'].map(parseCondition);
    expect(policy({ role: 'agent', node: 'web01', on }).slice(-4)).toEqual([
      'key_prefix "runlock/.state/db/" { policy = "read" }',
      'key_prefix "runlock/prod/db/.runs/" { policy = "read" }',
      'node_prefix "" { policy = "read" }',
      'service "web" { policy = "read" }',
    ]);
  });
});

test('who asks for jobs may write what is asked, and where the jobs are, under that name alone', () => {
  const viewer = policy({ role: 'viewer', groups: ['prod/web', 'prod/db'], principals: ['ci'] });
  expect(viewer.filter((rule) => rule.includes('"write"'))).toEqual([
    'key_prefix "runlock/.requests/ci/" { policy = "write" }',
    'key_prefix "runlock/prod/web/.jobs/ci/" { policy = "write" }',
    'key_prefix "runlock/prod/db/.jobs/ci/" { policy = "write" }',
  ]);
  // To write the group is to write its jobs.
  const operator = policy({ role: 'operator', principals: ['ops'] });
  expect(operator.filter((rule) => rule.includes('"write"'))).toEqual([
    'key_prefix "runlock/prod/web/" { policy = "write" }',
    'key_prefix "runlock/.requests/ops/" { policy = "write" }',
  ]);
});
