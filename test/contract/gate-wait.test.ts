// Waiting for the health gate, and looking again with a slot: on a real agent, with nodes that are in the catalogue alone.
import { afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { Verdict } from '../../src/gate/decide.ts';
import { gateGroup } from '../../src/gate/peers.ts';
import { confirmOpen, untilClosed, waitOpen } from '../../src/gate/wait.ts';
import type { Gate } from '../../src/gate/scene.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { succeeded } from '../support/consul-api.ts';
import { useAgent } from '../support/use-agent.ts';
import { startProxy } from '../support/proxy.ts';

const agent = useAgent();
beforeAll(async () => {
  for (const node of NODES) await set(node, 'passing');
});
afterEach(async () => {
  for (const node of NODES) await set(node, 'passing');
  await agent.kv.deleteTree('');
});

const NODES = ['web01', 'web02', 'web03'];

async function set(node: string, status: 'passing' | 'critical', Output = ''): Promise<void> {
  const check = { Node: node, CheckID: 'http', Name: 'answers', Status: status, ServiceID: 'web-1', Output };
  const Service = { ID: 'web-1', Service: 'web', Port: 80 };
  const body = { Node: node, Address: '127.0.0.1', SkipNodeUpdate: false, Service, Check: check };
  succeeded(await agent.http('PUT', '/v1/catalog/register', body), `registering ${node}`);
}

/** A run that has a slot of the group; its claim as runlock writes it. */
async function runs(node: string, slot: number, group = 'prod', more: object = {}): Promise<void> {
  const runner = { pid: 1, startTime: '1', bootId: 'b' };
  const claim = { v: 1, node, state: 'running', run: `run-${node}`, since: new Date().toISOString() };
  const value = JSON.stringify({ ...claim, command: 'true', hold: 'forever', ...runner, ...more });
  await agent.kv.put(`runlock/${group}/.slot/${slot}/owner`, value);
}

const never = new AbortController().signal;
const over = AbortSignal.abort();
const waitingUntil = (patience: AbortSignal, signal = never) => ({
  ...{ signal, patience, either: AbortSignal.any([signal, patience]) },
});
const group = (name: string, slots = 2) => gateGroup(groupKeys('runlock', name), slots);
const prod = group('prod');
const gate = (more: Partial<Gate> = {}): Gate => ({
  ...{
    services: ['web'],
    node: 'web01',
    maxOffline: 1,
    stableMs: 0,
    groups: [prod],
    seenHere: new Set(),
    ...more,
  },
});

function effects(env: Readonly<Record<string, string>> = agent.env): {
  consul: Consul;
  deps: { clock: typeof clock; random: () => number };
} {
  const consul = connect(consulSettings(env), { clock, emit: () => undefined });
  onTestFinished(() => consul.close());
  return { consul, deps: { clock, random: Math.random } };
}

/** Hears looks; resolves with the first that is as asked. */
function looks() {
  const seen: (readonly Verdict[])[] = [];
  let heard: () => void = () => undefined;
  return {
    onLook: (verdicts: readonly Verdict[]) => {
      seen.push(verdicts);
      heard();
    },
    until: (is: (last: Verdict) => boolean) =>
      new Promise<void>((resolve) => {
        heard = () => {
          const [last] = seen.at(-1) ?? [];
          if (last && is(last)) resolve();
        };
        heard();
      }),
    all: () => seen.map(([verdict]) => verdict?.open),
  };
}

describe('before a slot', () => {
  test('who runs in the group counts as offline, and waiting ends when that run does', async () => {
    await runs('web02', 0);
    const looked = looks();
    const waiting = waitOpen(effects(), gate(), { ...waitingUntil(never), onLook: looked.onLook });
    await looked.until(
      ({ because, offline }) => because === 'too-many-offline' && offline[0]?.node === 'web02',
    );
    await agent.kv.delete('runlock/prod/.slot/0/owner');
    expect(await waiting).toMatchObject({ kind: 'open', verdicts: [{ because: 'room' }] });
  });

  test('who held a claim whose time is over counts no more, although nothing changes', async () => {
    // 5 s are allowed for the difference of the clocks.
    const heldUntil = new Date(Date.now() - 1_000).toISOString();
    await runs('web02', 0, 'prod', { state: 'held', heldUntil });
    const looked = looks();
    const waiting = waitOpen(effects(), gate(), { ...waitingUntil(never), onLook: looked.onLook });
    await looked.until(({ open }) => !open);
    expect(await waiting).toMatchObject({ kind: 'open', verdicts: [{ because: 'room' }] });
  });

  test('every group that is named counts, and no other', async () => {
    await runs('web02', 0, 'other');
    const look = (groups: Gate['groups'] = []) => waitOpen(effects(), gate({ groups }), waitingUntil(over));
    expect((await look([prod])).kind).toBe('open');
    expect((await look([prod, group('other')])).kind).toBe('closed');
    expect((await look()).kind).toBe('open');
  });

  test('a gate that closes between two looks starts the time anew', async () => {
    const looked = looks();
    const stable = gate({ stableMs: 3_000 });
    const waiting = waitOpen(effects(), stable, { ...waitingUntil(never), onLook: looked.onLook });
    await looked.until(({ open }) => open);
    await set('web02', 'critical');
    await looked.until(({ open }) => !open);
    const fellMs = clock.monotonicMs();
    await set('web02', 'passing');
    const outcome = await waiting;
    if (outcome.kind !== 'open') throw new Error('it is closed');
    expect(outcome.seenMs - fellMs).toBeGreaterThanOrEqual(3_000);
    expect(looked.all().slice(0, 2)).toEqual([true, false]);
  });

  test('without patience one that is open is looked at twice, and one that is closed is closed', async () => {
    const looked = looks();
    const stable = gate({ stableMs: 300 });
    const open = await waitOpen(effects(), stable, { ...waitingUntil(over), onLook: looked.onLook });
    expect(open.kind).toBe('open');
    expect(looked.all()).toEqual([true, true]);
    await set('web03', 'critical');
    const closed = await waitOpen(effects(), stable, waitingUntil(over));
    expect(closed).toMatchObject({ kind: 'closed', verdicts: [{ offline: [{ node: 'web03' }] }] });
  });

  test('the second look asks anew: that nothing was heard for a while is no look', async () => {
    const proxy = await startProxy(agent);
    onTestFinished(() => proxy.close());
    const stable = gate({ stableMs: 300, groups: [] });
    const through = effects(proxy.env);
    expect((await waitOpen(through, stable, waitingUntil(never))).kind).toBe('open');
    const asked = proxy.requests.filter(
      ({ path }) => path.startsWith('/v1/health/') && !path.includes('index='),
    );
    expect(asked).toHaveLength(2);
    for (const { path } of asked) expect(path).toContain('consistent');
  });

  test('a service whose last instance goes while it is waited for is closed, until it is back', async () => {
    const api = async (name: 'register' | 'deregister', body: object) =>
      succeeded(await agent.http('PUT', `/v1/catalog/${name}`, body), name);
    const Service = { ID: 'api-1', Service: 'api', Port: 80 };
    const there = { Node: 'web02', Address: '127.0.0.1', SkipNodeUpdate: true, Service };
    await api('register', there);
    const looked = looks();
    const asked = gate({ services: ['api'], stableMs: 60_000, groups: [] });
    const stop = new AbortController();
    const waiting = waitOpen(effects(), asked, {
      ...{ ...waitingUntil(never, stop.signal), onLook: looked.onLook, mustBeOffered: ['api'] },
    });
    await looked.until(({ because }) => because === 'not-here');
    await api('deregister', { Node: 'web02', ServiceID: 'api-1' });
    await looked.until(({ open, because }) => !open && because === 'nowhere');
    await api('register', there);
    await looked.until(({ open }) => open);
    stop.abort(new Error('seen'));
    await expect(waiting).rejects.toThrow('seen');
    await api('deregister', { Node: 'web02', ServiceID: 'api-1' });
    const first = { ...waitingUntil(never), mustBeOffered: ['api'] };
    await expect(waitOpen(effects(), asked, first)).rejects.toMatchObject({ code: 'config' });
  });

  // Consul's answer takes any case; the agents, that go into maintenance by it, do not.
  test('refuses a name that is offered in another case alone, with the right one', async () => {
    const asked = gate({ services: ['WEB'], groups: [] });
    const first = { ...waitingUntil(never), mustBeOffered: ['WEB'] };
    await expect(waitOpen(effects(), asked, first)).rejects.toMatchObject({
      ...{
        code: 'config',
        message: expect.stringContaining("no instances of WEB (did you mean 'web'?)") as string,
      },
    });
  });

  // Open before: an agent that was restarted took its node's instance along, and the gate let it pass.
  test('is closed while the node no longer shows what it was seen to offer, also in a later look', async () => {
    await set('web03', 'critical');
    const asked = gate({ groups: [] });
    const first = await waitOpen(effects(), asked, waitingUntil(over));
    expect(first).toMatchObject({ kind: 'closed', verdicts: [{ because: 'too-many-offline' }] });
    succeeded(await agent.http('PUT', '/v1/catalog/deregister', { Node: 'web01' }), 'leaving');
    const away = { kind: 'closed', verdicts: [{ open: false, because: 'away' }] };
    expect(await waitOpen(effects(), asked, waitingUntil(over))).toMatchObject(away);
    expect(await confirmOpen(effects(), asked, { signal: never })).toMatchObject(away);
    await set('web01', 'passing');
    await set('web03', 'passing');
    expect((await waitOpen(effects(), asked, waitingUntil(over))).kind).toBe('open');
  });

  test('ends with the reason of its signal, and with patience as closed', async () => {
    await set('web03', 'critical');
    const ended = new AbortController();
    const looked = looks();
    const waiting = waitOpen(effects(), gate(), {
      ...waitingUntil(never, ended.signal),
      onLook: looked.onLook,
    });
    await looked.until(({ open }) => !open);
    const reason = new Error('TERM');
    ended.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    const patience = new AbortController();
    const patient = waitOpen(effects(), gate(), waitingUntil(patience.signal));
    patience.abort();
    expect((await patient).kind).toBe('closed');
  });
});

describe('Consul away', () => {
  /** Nobody answers what is asked of health, until it was asked more often than a first contact asks. */
  async function away() {
    const proxy = await startProxy(agent);
    onTestFinished(() => proxy.close());
    const isHealth = ({ path }: { path: string }) => path.startsWith('/v1/health/');
    const back = proxy.rule({ match: isHealth, do: 'drop-before' });
    return {
      through: effects(proxy.env),
      back,
      asked: (n: number) => proxy.seen(isHealth, n),
    };
  }

  test('before the slot and with it: waited for while there is patience', async () => {
    await runs('web01', 0);
    const { through, back, asked } = await away();
    const outside = waitOpen(through, gate(), waitingUntil(never));
    const inside = confirmOpen(through, gate(), { signal: never, trying: never });
    await asked(12);
    expect(await Promise.race([outside, inside, Promise.resolve()])).toBeUndefined();
    back();
    expect([(await outside).kind, (await inside).kind]).toEqual(['open', 'open']);
  });

  test('with the slot no longer than half a minute, however patient: others wait for the slot', async () => {
    await runs('web01', 0);
    const { through, asked } = await away();
    const limits: number[] = [];
    let pass: () => void = () => undefined;
    const passed = new Promise<void>((resolve) => (pass = resolve));
    const sleep: typeof clock.sleep = (ms, options) => {
      if (ms < 30_000) return clock.sleep(ms, options);
      limits.push(ms);
      return passed;
    };
    const deps = { ...through.deps, clock: { ...clock, sleep } };
    const inside = confirmOpen({ ...through, deps }, gate(), { signal: never, trying: never });
    const ended = expect(inside).rejects.toMatchObject({ code: 'unreachable' });
    await asked(2);
    pass();
    await ended;
    expect(limits).toEqual([30_000]);
  });

  test('without patience, and at its end, that is said, and nothing is taken for closed or open', async () => {
    const { through, asked } = await away();
    const patience = new AbortController();
    const looks = [
      waitOpen(through, gate(), waitingUntil(over)),
      confirmOpen(through, gate(), { signal: never }),
      waitOpen(through, gate(), waitingUntil(patience.signal)),
    ];
    const settled = Promise.allSettled(looks);
    await asked(4);
    patience.abort();
    for (const one of await settled)
      expect(one).toMatchObject({ status: 'rejected', reason: { code: 'unreachable' } });
  });
});

describe('in the queue', () => {
  /** Resolves with whom the gate is closed for; and whether it has, once it has looked twice more. */
  async function watch(more: Partial<Gate> = {}) {
    const stop = new AbortController();
    onTestFinished(() => stop.abort());
    const proxy = await startProxy(agent);
    onTestFinished(() => proxy.close());
    let closed: string[] | undefined;
    const watching = untilClosed(effects(proxy.env), gate(more), stop.signal).then(
      (verdicts) => (closed = verdicts.flatMap(({ offline }) => offline.map(({ node }) => node))),
      () => undefined,
    );
    const isLook = ({ path }: { path: string }) => path.startsWith('/v1/health/') && !path.includes('index=');
    const looks = () => proxy.requests.filter(isLook).length;
    return {
      watching,
      closed: () => closed,
      looked: (times: number) => proxy.seen(isLook, looks() + times),
    };
  }

  test('a peer that falls ill closes the gate; one that runs, ill or out meanwhile, is waited for', async () => {
    await runs('web02', 0);
    await set('web02', 'critical');
    const { watching, closed, looked } = await watch({ groups: [group('prod', 1)] });
    await looked(1);
    await set('web03', 'critical');
    await watching;
    expect(closed()).toEqual(['web03']);
  });

  test('a run that fails and leaves its node ill is waited for there no more', async () => {
    await runs('web02', 0);
    await set('web02', 'critical');
    const { watching, closed, looked } = await watch();
    await looked(1);
    await runs('web02', 0, 'prod', { state: 'failed' });
    await watching;
    expect(closed()).toEqual(['web02']);
  });

  test('a peer that is ill for a moment costs nobody its place', async () => {
    const { watching, looked } = await watch();
    await looked(1);
    await set('web03', 'critical');
    await set('web03', 'passing');
    await expectToStay(watching);
  });

  test('whoever is ill itself stays', async () => {
    const { watching, looked } = await watch({ node: 'web02' });
    await set('web02', 'critical');
    await looked(1);
    await set('web03', 'critical');
    await expectToStay(watching);
  });

  /** For longer than the gate has to be closed. */
  async function expectToStay(watching: Promise<unknown>): Promise<void> {
    const waited = clock.sleep(4_000, { signal: never }).then(() => 'stays');
    expect(await Promise.race([watching, waited])).toBe('stays');
  }
});

test('twenty at a closed gate: whatever its checks print, each looks once a second at most', async () => {
  const proxy = await startProxy(agent);
  onTestFinished(() => proxy.close());
  await set('web03', 'critical');
  const stops = Array.from({ length: 20 }, () => new AbortController());
  const waiting = stops.map(({ signal }) =>
    waitOpen(effects(proxy.env), gate({ groups: [] }), waitingUntil(never, signal)).catch(() => undefined),
  );
  const isWatch = ({ path }: { path: string }) => path.startsWith('/v1/health/') && path.includes('index=');
  await proxy.seen(isWatch, 20);
  const startedMs = clock.monotonicMs();
  const before = proxy.requests.filter(isWatch).length;
  let changes = 0;
  while (clock.monotonicMs() - startedMs < 5_000) {
    changes += 1;
    await set('web03', 'critical', `it is ${changes}`);
    await clock.sleep(150, { signal: never });
  }
  const seconds = (clock.monotonicMs() - startedMs) / 1_000;
  const asked = proxy.requests.filter(isWatch).length - before;
  if (process.env['RUNLOCK_FIGURES'] !== undefined) console.log({ changes, asked, seconds });
  expect(asked / 20).toBeLessThanOrEqual(1 + seconds);
  expect(asked / 20).toBeGreaterThanOrEqual(1);
  for (const stop of stops) stop.abort();
  await Promise.all(waiting);
});

describe('with a slot', () => {
  test('of two that were granted at once the younger yields, and not both', async () => {
    await runs('web02', 0);
    await runs('web01', 1);
    const first = await confirmOpen(effects(), gate({ node: 'web02' }), { signal: never });
    const second = await confirmOpen(effects(), gate({ node: 'web01' }), { signal: never });
    expect([first.kind, second.kind]).toEqual(['open', 'closed']);
  });

  test('an open look that is recent is enough with one more; an older one is not', async () => {
    await runs('web01', 0);
    const stable = gate({ stableMs: 60_000 });
    const recent = { signal: never, seenMs: clock.monotonicMs() };
    expect((await confirmOpen(effects(), stable, recent)).kind).toBe('open');
    const looked = looks();
    const old = { signal: never, seenMs: clock.monotonicMs() - 61_000, onLook: looked.onLook };
    const looking = confirmOpen(effects(), stable, old);
    await looked.until(({ open }) => open);
    await set('web02', 'critical');
    expect((await looking).kind).toBe('closed');
  });
});
