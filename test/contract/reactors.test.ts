// Triggers and hooks of a node on a real Consul: what starts them, what they ask, and what they write. The runs are played.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { hookReactor } from '../../src/agent/hooks.ts';
import { toHook } from '../../src/agent/hook/definition.ts';
import { signatureOf } from '../../src/agent/hook/message.ts';
import type { Reactor, Waits } from '../../src/agent/reactor.ts';
import { runReactors } from '../../src/agent/reactors.ts';
import type { Trigger } from '../../src/agent/task/trigger.ts';
import { triggerReactor } from '../../src/agent/triggers.ts';
import type { TriggeredRuns } from '../../src/agent/triggers.ts';
import { parseCondition } from '../../src/conditions/parse.ts';
import { connect } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { RunEvent } from '../../src/events/events.ts';
import type { Cursor } from '../../src/jobs/cursor.ts';
import { triggerKey } from '../../src/jobs/keys.ts';
import { clock } from '../../src/platform/deps.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { playTriggered } from '../support/played-trigger.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Proxy } from '../support/proxy.ts';
import { runlock } from '../support/runlock.ts';
import { serve } from '../support/serve.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();
const set = (path: string, value: string) => runlock(agent, ['state', 'set', path, value]);
const remove = (path: string) => runlock(agent, ['state', 'delete', path]);

type Env = Parameters<typeof consulSettings>[0];
function openConsul(env: Env) {
  const emit = () => undefined;
  const consul = connect(consulSettings(env), { clock, emit });
  onTestFinished(() => consul.close());
  return consul;
}

interface NodeSetup {
  readonly node: string;
  readonly tasks?: Readonly<
    Record<string, Partial<Trigger> & { readonly on: readonly ReturnType<typeof parseCondition>[] }>
  >;
  readonly env?: Env;
  /** How a run ends; a promise: when. */
  readonly ends?: (task: string, nth: number) => Promise<'good' | 'bad' | 'killed'>;
  readonly hooks?: readonly string[];
  readonly uid?: number;
}

/** A node's triggers, with runs that do what the real ones do to their cursors. */
function reactOn({
  node,
  tasks = {},
  env = agent.env,
  ends = () => Promise.resolve('good'),
  hooks = [],
}: NodeSetup) {
  const consul = openConsul(env);
  const own = openConsul(agent.env);
  const events: RunEvent[] = [];
  const waits = new Map<string, Waits>();
  const deps = {
    clock,
    random: () => 0,
    emit: (event: RunEvent) => void events.push(event),
  } as unknown as Deps;
  const ways = { consul, deps, prefix: 'runlock', node };
  const runs: string[] = [];
  const alive = new Map<string, Promise<void>>();
  const trigger = (on: Partial<Trigger>): Trigger => ({
    ...{ on: [], debounceMs: 0, minIntervalMs: 0, onFirst: 'run', perHour: 6 },
    ...on,
  });
  const play = (task: string, nth: number) =>
    playTriggered({
      ...{ consul: own, node, task, run: `${task}-${nth}`, rules: trigger(tasks[task] ?? {}) },
      command: () => {
        runs.push(task);
        return ends(task, nth);
      },
    });
  const triggered: TriggeredRuns = {
    isAlive: (task) => alive.has(task),
    start: (task) => {
      const over = play(task, runs.length).finally(() => alive.delete(task));
      alive.set(task, over);
    },
    ended: (task) => alive.get(task) ?? Promise.resolve(),
    lastWord: () => undefined,
  };
  const reactors: Reactor[] = [
    ...Object.entries(tasks).map(([task, on]) =>
      triggerReactor({ ...ways, runs: triggered }, { task, trigger: trigger(on) }),
    ),
    ...hooks.map((post, i) => {
      const keys = Object.entries({ on: ['state:hook'], ...(JSON.parse(post) as object) });
      const entries = keys.map(([key, value]) => ({ path: [key], value, line: 1 }));
      const hook = toHook({ name: `h${i}`, file: 'h.toml' }, entries);
      const uid = process.getuid?.() ?? 0;
      let ids = 0;
      return hookReactor(
        { ...ways, uid, version: '0', authorities: () => [], newId: () => `id-${(ids += 1)}` },
        hook,
      );
    }),
  ];
  let over = new AbortController();
  let ring = () => {};
  let paused = false;
  const resets: string[] = [];
  const start = () => {
    over = new AbortController();
    const working = runReactors(
      {
        ...ways,
        paceMs: 50,
        isPaused: () => paused,
        takeResets: () => resets.splice(0).map((task) => triggerKey('runlock', node, task)),
        onChange: (bell) => (ring = bell),
        tell: ({ name }, what) => waits.set(name, what),
      },
      reactors,
      over.signal,
    );
    working.catch(() => undefined);
  };
  const stop = () => over.abort(new Error('stopped'));
  onTestFinished(stop);
  return {
    start,
    stop,
    runs,
    events,
    waits,
    pause: (now: boolean) => {
      paused = now;
      ring();
    },
    reset: (task: string) => {
      resets.push(task);
      ring();
    },
    cursor: async (task: string) => {
      const entry = await agent.kv.get(triggerKey('runlock', node, task));
      return entry && (JSON.parse(entry.Value) as Cursor);
    },
  };
}

const on = (...texts: string[]) => texts.map(parseCondition);
/** Nothing more happens: what was asked for last has been answered. */
const settled = (proxy: Proxy) => eventually(() => expect(proxy.requests.at(-1)?.path).toMatch(/[?&]index=/));

describe('a trigger', () => {
  test('runs for each change, none for a restart alone, and for what changed meanwhile', async () => {
    const { start, stop, runs, cursor } = reactOn({
      node: 'tg-one',
      tasks: { chef: { on: on('state:one') } },
    });
    start();
    await set('one', '1');
    await eventually(async () => expect((await cursor('chef'))?.goodAt).toBeDefined());
    await set('one', '2');
    await eventually(() => expect(runs).toHaveLength(2));
    await eventually(async () => expect(await cursor('chef')).not.toHaveProperty('run'));
    stop();
    start();
    await set('other', '1');
    stop();
    await set('one', '3');
    start();
    await eventually(() => expect(runs).toHaveLength(3));
    // Deleted and set again to the same value: a new change.
    await eventually(async () => expect(await cursor('chef')).not.toHaveProperty('run'));
    stop();
    await remove('one');
    await set('one', '3');
    start();
    await eventually(() => expect(runs).toHaveLength(4));
  });

  test('runs once more for all that changed during a run', async () => {
    let go = () => {};
    const gone = new Promise<void>((resolve) => (go = resolve));
    const ends = (_: string, nth: number) =>
      nth === 0 ? gone.then(() => 'good' as const) : Promise.resolve('good' as const);
    const { start, runs, cursor } = reactOn({
      node: 'tg-two',
      tasks: { chef: { on: on('state:two') } },
      ends,
    });
    start();
    await set('two', '1');
    await eventually(() => expect(runs).toHaveLength(1));
    for (const value of ['2', '3', '4']) await set('two', value);
    go();
    await eventually(() => expect(runs).toHaveLength(2));
    await eventually(async () => expect(await cursor('chef')).not.toHaveProperty('run'));
    expect(runs).toHaveLength(2);
  });

  test('that fails or is killed waits, and an operator’s reset starts it at once', async () => {
    const ends = (_: string, nth: number) =>
      Promise.resolve((['bad', 'killed', 'good'] as const)[nth] ?? 'good');
    const { start, runs, cursor, reset, waits } = reactOn({
      node: 'tg-bad',
      tasks: { chef: { on: on('state:bad') } },
      ends,
    });
    start();
    await set('bad', '1');
    await eventually(() => expect(waits.get('task chef')).toEqual({ kind: 'held', by: 'back-off' }));
    reset('chef');
    await eventually(async () => expect(await cursor('chef')).toMatchObject({ failures: 1 }));
    await eventually(() => expect(runs).toHaveLength(2));
    await eventually(() => expect(waits.get('task chef')).toEqual({ kind: 'held', by: 'back-off' }));
    reset('chef');
    await eventually(async () => expect((await cursor('chef'))?.goodAt).toBeDefined());
    expect(runs).toHaveLength(3);
  });

  test('waits while the agent is paused, and runs once for all of that time', async () => {
    const { start, pause, runs, waits } = reactOn({
      node: 'tg-pause',
      tasks: { chef: { on: on('state:paused') } },
    });
    pause(true);
    start();
    await set('paused', '1');
    await eventually(() => expect(waits.get('task chef')).toEqual({ kind: 'held', by: 'paused' }));
    await set('paused', '2');
    expect(runs).toEqual([]);
    pause(false);
    await eventually(() => expect(runs).toHaveLength(1));
  });

  test('two that start each other end: one is refused as a loop', async () => {
    const { start, events, runs } = reactOn({
      node: 'tg-loop',
      tasks: { ping: { on: on('state:lb') }, pong: { on: on('state:la') } },
      ends: async (task, nth) => {
        const env = {
          RUNLOCK_RUN_CAUSE: Array.from(
            { length: nth + 1 },
            (_, i) => `${i % 2 ? 'pong' : 'ping'}@tg-loop`,
          ).join(),
          RUNLOCK_RUN_DEPTH: `${nth + 1}`,
        };
        await runlock(agent, ['state', 'set', task === 'ping' ? 'la' : 'lb', `${nth}`], { env });
        return 'good';
      },
    });
    start();
    await set('lb', 'first');
    await eventually(() =>
      expect(events).toContainEqual(
        expect.objectContaining({ event: 'trigger-refused', task: 'ping', why: 'loop' }),
      ),
    );
    expect(runs).toEqual(['ping', 'pong']);
  });

  test('two whose causes nobody carries on end by the bucket', async () => {
    const { start, waits, runs, cursor } = reactOn({
      node: 'tg-bucket',
      tasks: { ping: { on: on('state:bb'), perHour: 3 }, pong: { on: on('state:ba'), perHour: 3 } },
      ends: async (task) => {
        await set(task === 'ping' ? 'ba' : 'bb', `${Math.random()}`);
        return 'good';
      },
    });
    start();
    await set('bb', 'first');
    await eventually(() => expect(waits.get('task ping')).toEqual({ kind: 'held', by: 'tripped' }));
    expect(runs).toEqual(['ping', 'pong', 'ping', 'pong', 'ping', 'pong']);
    expect((await cursor('ping'))?.trippedAt).toBeDefined();
  });
});

describe('what a node asks and writes', () => {
  test('is one query for each key, whoever needs it, and nothing when idle', async () => {
    await using proxy = await startProxy(agent);
    const tasks = {
      one: { on: on('state:ask/a') },
      two: { on: on('state:ask/a', 'state:ask/b=1') },
      three: { on: on('not:state:ask/b=1'), onFirst: 'skip' as const },
    };
    const { start, runs } = reactOn({ node: 'tg-ask', tasks, env: proxy.env });
    await set('ask/a', '0');
    start();
    await eventually(() => expect([...runs].sort()).toEqual(['one', 'two']));
    const watches = () =>
      proxy.requests.filter(({ path }) => path.includes('index=')).map(({ path }) => path.split('?')[0]);
    await eventually(() => expect(new Set(watches()).size).toBe(2));
    const writes = () =>
      proxy.requests.filter(
        ({ path, body }) => path.startsWith('/v1/txn') && /"Verb":"cas".*\.triggers/.test(body),
      );
    await eventually(() => expect(writes().length).toBe(1));
    await settled(proxy);
    const before = proxy.requests.length;
    for (let i = 0; i < 5; i += 1) await set(`asking/${i}`, '1');
    expect(proxy.requests.length - before).toBeLessThanOrEqual(4);
    expect(writes()).toHaveLength(1);
  });
});

describe('a hook', () => {
  test('tells of a change until it is taken, under one id, signed; then no more', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'runlock-hook-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const secret = join(folder, 'key');
    writeFileSync(secret, 'word\n', { mode: 0o600 });
    const got: { body: string; signature: unknown }[] = [];
    const at = await serve((request, response) => {
      let body = '';
      request.on('data', (part: Buffer) => (body += part.toString()));
      request.on('end', () => {
        got.push({ body, signature: request.headers['x-runlock-signature'] });
        response.writeHead(got.length === 1 ? 503 : 200).end();
      });
    });
    const { start, stop, events } = reactOn({
      node: 'hk-one',
      hooks: [JSON.stringify({ post: `http://${at}/x`, secret_file: secret })],
    });
    await set('hook', 'a value');
    start();
    await eventually(() => expect(got).toHaveLength(2));
    const [first, second] = got.map(({ body }) => JSON.parse(body) as { id: string; conditions: object[] });
    expect(first?.id).toBe(second?.id);
    expect(second?.conditions).toEqual([
      expect.objectContaining({ condition: 'state:hook', holds: true, changed: true, value: 'a value' }),
    ]);
    for (const { body, signature } of got) expect(signature).toBe(signatureOf(body, Buffer.from('word')));
    await eventually(() => expect(events).toContainEqual(expect.objectContaining({ event: 'hook-taken' })));
    await eventually(async () =>
      expect(await agent.kv.get('runlock/.triggers/hk-one/.hook/h0')).toBeDefined(),
    );
    stop();
    start();
    await set('hook', 'another');
    await eventually(() => expect(got).toHaveLength(3));
    expect(JSON.stringify(events)).not.toContain('word');
    expect(JSON.stringify(events)).not.toContain('/x');
  });

  test('that never answers, or has no secret, holds up no other', async () => {
    const silent = await serve(() => undefined);
    const heard: string[] = [];
    const at = await serve((_, response) => {
      heard.push('x');
      response.end();
    });
    const { start, events } = reactOn({
      node: 'hk-two',
      hooks: [
        JSON.stringify({ post: `http://${silent}/`, timeout: '60s' }),
        JSON.stringify({ post: `http://${at}/`, secret_file: '/nowhere/key' }),
        JSON.stringify({ post: `http://${at}/` }),
      ],
    });
    await set('hook', 'again');
    start();
    await eventually(() => expect(heard).toHaveLength(1));
    await eventually(() =>
      expect(events).toContainEqual(expect.objectContaining({ event: 'reactor-failed', reactor: 'hook h1' })),
    );
    await set('hook', 'once more');
    await eventually(() => expect(heard).toHaveLength(2));
  });
});
