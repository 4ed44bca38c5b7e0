// What doctor says of a node's agent, and of its triggers.
import { expect, test } from 'vitest';
import { judgeAgent, judgeTriggers } from '../../src/commands/doctor/agent-now.ts';

const NOW_MS = Date.UTC(2026, 2, 1, 12);
const at = (ms: number) => new Date(NOW_MS + ms).toISOString();

test('an agent that serves nobody, or is paused, is warned of', () => {
  expect(judgeAgent({ node: 'web01' }, { now: NOW_MS })).toEqual([
    { check: 'agent', level: 'ok', found: 'an agent of web01 is running' },
  ]);
  const both = judgeAgent(
    { node: 'web01', noRequests: 'so; do this; or that', pausedSince: at(-60_000) },
    { now: NOW_MS },
  );
  expect(both.slice(1)).toEqual([
    { check: 'agent', level: 'warning', found: 'the agent serves no requests: so', fix: 'do this; or that' },
    {
      check: 'agent',
      level: 'warning',
      found: 'the agent has been paused for 1m: requests and triggers wait',
      fix: "run 'runlock agent resume'",
    },
  ]);
});

test("files that it can't use are, unless that is said already", () => {
  const faults = ['a.toml', 'b.toml', '/tasks.d'].map((file) => ({ file, why: 'not TOML' }));
  const checks = judgeAgent(
    { node: 'web01', faults, moreFaults: 3 },
    { now: NOW_MS, isKnown: (fault) => fault.startsWith('a.toml') },
  );
  expect(checks.slice(1).map(({ level, found }) => [level, found])).toEqual([
    ['warning', "the agent can't use b.toml: not TOML"],
    ['warning', "the agent can't use /tasks.d: not TOML"],
    ['warning', "the agent can't use 3 more files"],
  ]);
});

test('triggers and hooks that start nothing are; one that has failed once is not', () => {
  const entry = (name: string, more: object) => ({
    key: `runlock/.triggers/web01/${name}`,
    value: JSON.stringify({ v: 1, since: at(-1), marks: {}, ...more }),
    flags: 0,
    createIndex: 1,
    modifyIndex: 1,
    lockIndex: 0,
  });
  const entries = [
    entry('fine', {}),
    entry('once', { failures: 1, backOffUntil: at(60_000) }),
    entry('bad', { failures: 4, backOffUntil: at(60_000) }),
    entry('often', { trippedAt: at(-1_000), tripEndsAt: at(60_000) }),
    entry('.hook/chat', { stalledAt: at(-1_000) }),
  ];
  const checks = judgeTriggers({ prefix: 'runlock', node: 'web01', now: NOW_MS, entries });
  expect(checks.map(({ level, found, fix }) => [level, found, fix])).toEqual([
    ['warning', 'trigger of bad is stuck: its last 4 runs failed', 'correct its cause; next try in 1m'],
    [
      'warning',
      'trigger of often is tripped: it started too often, 1s ago',
      "correct its cause; next try in 1m, or after 'runlock agent reset often' on the node",
    ],
    [
      'warning',
      "hook chat is stuck: its posts are not taken, the agent's log says why (noted 1s ago)",
      'correct its cause; it tries again every 5 minutes or sooner',
    ],
  ]);
});
