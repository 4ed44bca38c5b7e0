// What stands in Consul for jobs: each document as it was written, or an error that names its key.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FINAL_STATES, OPEN_STATES } from '../../src/jobs/documents.ts';
import type {
  AgentDocument,
  Pointer,
  Spec,
  Stage,
  Tally,
  TargetDocument,
  Targets,
} from '../../src/jobs/documents.ts';
import {
  decodeAgent,
  decodePointer,
  decodeSpec,
  decodeStage,
  decodeTally,
  decodeTarget,
  decodeTargets,
  encodeAgent,
  encodePointer,
  encodeSpec,
  encodeStage,
  encodeTally,
  encodeTarget,
  encodeTargets,
} from '../../src/jobs/records.ts';

const at = '2026-03-01T12:00:00.000Z';
const spec: Spec = {
  ...{ nonce: 'n', task: 'chef', params: { recipe: 'app' }, home: 'prod/web', stages: [1, 2], digest: 'd' },
  ...{ chunks: 2, filled: 1, maxFailures: 1, offline: 'skip', pauseMs: 600_000, until: at, timeoutMs: 1_000 },
  ...{ noop: true, chain: ['deploy@ci'], of: 'deploy-41', reason: 'release 42', by: 'ann@ci', at },
};
const pointer: Pointer = { nonce: 'n', chunk: 1 };
const targets: Targets = {
  targets: [
    ['web01', 0],
    ['web02', -1],
  ],
};
const stages: Stage[] = [
  { rev: 0, kind: 'fill' },
  { rev: 1, kind: 'open', stage: 1, since: at, notBefore: at },
  { rev: 2, kind: 'stopped', why: 'cancelled', by: 'ann', at, kill: true },
  { rev: 3, kind: 'done', at },
];
const tally: Tally = { rev: 3, stages: [{ final: 2, good: 1 }], states: { good: 1, lost: 1 } };
const target: TargetDocument = {
  ...{ rev: 2, state: 'failed', run: 'r1', bootId: 'b', served: true, acceptedAt: at, startedAt: at },
  ...{ endedAt: at, exitCode: 1, why: 'exit 1', lastLine: 'bye', late: 'good' },
};
const agent: AgentDocument = {
  ...{ node: 'web01', version: '1.0.0', bootId: 'b', host: 'web01', pid: 1, since: at },
  ...{ noRequests: 'ACLs are off', pausedSince: at },
  ...{ faults: [{ file: 'a.toml', why: 'not TOML' }], moreFaults: 2 },
  tasks: [
    {
      ...{ name: 'chef', description: 'converges', groups: ['prod/web'], allow: ['ops'], params: ['recipe'] },
      ...{ on: ['state:a'], when: [], publish: ['web/version'] },
    },
  ],
};

type Kind = readonly [
  what: string,
  value: string,
  record: object,
  decode: (stored: { key: string; value: string }) => object,
];
const kinds: Kind[] = [
  ['request', encodeSpec(spec), spec, decodeSpec],
  ['pointer', encodePointer(pointer), pointer, decodePointer],
  ['list of targets', encodeTargets(targets), targets, decodeTargets],
  ...stages.map((stage): Kind => [`stage ${stage.kind}`, encodeStage(stage), stage, decodeStage]),
  ['tally', encodeTally(tally), tally, decodeTally],
  ['target', encodeTarget(target), target, decodeTarget],
  ['agent', encodeAgent(agent), agent, decodeAgent],
];

const KEY = 'runlock/some/key';
const refuses = (decode: Kind[3], value: string) => {
  expect(() => decode({ key: KEY, value })).toThrow(
    expect.objectContaining({ code: 'incompatible', message: expect.stringContaining(KEY) as string }),
  );
};

describe.each(kinds)('%s', (_, value, record, decode) => {
  const fields = JSON.parse(value) as Record<string, unknown>;

  test('is read as it was written', () => {
    expect(decode({ key: KEY, value })).toEqual(record);
  });

  test('of a newer format says to upgrade', () => {
    expect(() => decode({ key: KEY, value: JSON.stringify({ ...fields, v: 2 }) })).toThrow(/newer runlock/);
    refuses(decode, JSON.stringify({ ...fields, v: 2 }));
  });

  test('that is no such document is refused by the name of its key', () => {
    const values = [
      '',
      '{',
      'null',
      '[]',
      '7',
      '"x"',
      '{"v":"1"}',
      '{"v":1}',
      '[{"v":1}]',
      'x'.repeat(524_288),
    ];
    for (const each of [...values, '['.repeat(524_288), JSON.stringify({ ...fields, v: undefined })])
      refuses(decode, each);
  });

  test('with a field of another type is refused', () => {
    for (const field of Object.keys(record))
      for (const wrong of [null, {}, [[]], -1, 1e308, 'no such thing', false])
        if (kindOf(wrong) !== kindOf(fields[field]))
          refuses(decode, JSON.stringify({ ...fields, [field]: wrong }));
  });

  test('with anything in it is read or refused, and what is read can be written', () => {
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(fields)), fc.jsonValue(), (field, any) => {
        let read: object;
        try {
          read = decode({ key: KEY, value: JSON.stringify({ ...fields, [field]: any }) });
        } catch (error) {
          expect(error).toMatchObject({ code: 'incompatible' });
          return;
        }
        expect(() => JSON.stringify(read)).not.toThrow();
      }),
      { numRuns: 200 },
    );
  });

  test('keeps nothing that it does not know, however deep', () => {
    const deep = `${value.slice(0, -1)},"more":${'['.repeat(20_000)}${']'.repeat(20_000)}}`;
    expect(decode({ key: KEY, value: deep })).toEqual(record);
  });
});

/** Of a number, every other is wrong. */
const kindOf = (value: unknown): unknown =>
  Array.isArray(value) ? 'list' : typeof value === 'number' ? value : value === null ? 'null' : typeof value;

test('every state of a target is read', () => {
  for (const state of [...FINAL_STATES, ...OPEN_STATES])
    expect(decodeTarget({ key: KEY, value: encodeTarget({ rev: 0, state }) })).toEqual({ rev: 0, state });
});

describe('refused', () => {
  const bad: [string, string, Kind[3]][] = [
    ['more lists written than there are', encodeSpec({ ...spec, filled: 3 }), decodeSpec],
    ['a request without stages', encodeSpec({ ...spec, stages: [] }), decodeSpec],
    ['a stage of an absurd size', encodeSpec({ ...spec, stages: [1e9] }), decodeSpec],
    ['a request of countless lists', encodeSpec({ ...spec, chunks: 1e6 }), decodeSpec],
    ['a task that is a path', encodeSpec({ ...spec, task: '../x' }), decodeSpec],
    ['a home that is no path', encodeSpec({ ...spec, home: 'prod//web' }), decodeSpec],
    ['a parameter of a strange name', encodeSpec({ ...spec, params: { 'A b': 'x' } }), decodeSpec],
    ['a parameter that is no text', JSON.stringify({ v: 1, ...spec, params: { a: 1 } }), decodeSpec],
    ['a job of a strange name', encodeSpec({ ...spec, of: '../x' }), decodeSpec],
    ['one node twice', encodeTargets({ targets: [...targets.targets, ['web01', 1]] }), decodeTargets],
    ['a node that is a path', encodeTargets({ targets: [['a/b', 1]] }), decodeTargets],
    ['a stage below none', encodeTargets({ targets: [['a', -2]] }), decodeTargets],
    ['half a stage', encodeTargets({ targets: [['a', 0.5]] }), decodeTargets],
    [
      'too many targets in a list',
      encodeTargets({ targets: Array.from({ length: 61 }, (_, i) => [`n${i}`, 0] as const) }),
      decodeTargets,
    ],
    ['more good than ended', encodeTally({ ...tally, stages: [{ final: 1, good: 2 }] }), decodeTally],
    ['a count of no state', JSON.stringify({ v: 1, ...tally, states: { fine: 1 } }), decodeTally],
    ['a stage that its kind has not', JSON.stringify({ v: 1, rev: 1, kind: 'open', at }), decodeStage],
    ['a stage of an inherited kind', JSON.stringify({ v: 1, rev: 1, kind: 'toString' }), decodeStage],
    ['a target longer than any', encodeTarget({ ...target, why: 'x'.repeat(70_000) }), decodeTarget],
  ];
  test.each(bad)('%s', (_, value, decode) => {
    refuses(decode, value);
  });
});

test('what is for people is cut where it is too long', () => {
  const long = 'x'.repeat(5_000);
  const read = decodeTarget({
    key: KEY,
    value: encodeTarget({ ...target, why: long, lastLine: long, late: long }),
  });
  expect([read.why?.length, read.lastLine?.length, read.late?.length]).toEqual([1_000, 200, 1_000]);
});
