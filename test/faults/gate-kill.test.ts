// SIGKILL at each moment of the gate: what stays in Consul says what it is, others stay within the limit meanwhile, and
// the node's next run or an operator puts it right. A proxy holds the request at which the process is killed.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TestContext } from 'vitest';
import type { Node } from '../support/history/fleet.ts';
import { endsWith, startGated } from '../support/history/gated.ts';
import type { Gated } from '../support/history/gated.ts';
import { SOON_MS, livingOf, untilDead } from '../support/history/steps.ts';
import { end, eventually, untilGone } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Match, Proxy } from '../support/proxy.ts';
import { STEPS } from '../support/proxy-steps.ts';
import { spawnRunlock } from '../support/program.ts';
import type { Spawned } from '../support/program.ts';
import { startServices } from '../support/services.ts';
import type { Services } from '../support/services.ts';

const LONG = { timeout: 150_000 };

let services: Services;
beforeAll(async () => {
  services = await startServices({ nodes: 2, services: [] });
});
afterAll(() => services[Symbol.asyncDispose]());

/** What a killed run leaves. */
interface Left {
  /** Its claim is there. */
  readonly claim: boolean;
  /** The lock of the gate is held by its session. */
  readonly locked: boolean;
  /** The node is in maintenance, in the run's name. */
  readonly out: boolean;
}

interface Moment {
  readonly at: string;
  readonly step: keyof typeof STEPS;
  /** At the n-th request of the step; the first unless given. */
  readonly nth?: number;
  /** The request takes effect, and only its answer is missing; unless given it does not even arrive. */
  readonly done?: true;
  readonly left: Left;
  /** Its sessions end by themselves, and are not ended by the test. */
  readonly inTime?: true;
}

const NOTHING: Left = { claim: false, locked: false, out: false };
const CLAIM: Left = { ...NOTHING, claim: true };
const LOCKED: Left = { ...CLAIM, locked: true };
const ENTERING: Left = { ...LOCKED, out: true };
const OUT: Left = { ...CLAIM, out: true };

type Request = Pick<Moment, 'step' | 'nth'>;

/** The n-th request of the step; tells `heard` of it. */
function matching({ step, nth = 1 }: Request, heard: () => void = () => undefined): Match {
  let count = 0;
  return (request) => {
    const is = STEPS[step](request) && ++count === nth;
    if (is) heard();
    return is;
  };
}

/** Resolves when the request is there, or has taken effect; it is never answered. */
function reached(proxy: Proxy, { done, ...request }: Request & Pick<Moment, 'done'>): Promise<void> {
  return new Promise((resolve) => {
    if (done) proxy.rule({ match: matching(request), do: { done: resolve } });
    else proxy.rule({ match: matching(request, resolve), do: 'hang' });
  });
}

/** Holds the request back until it is let go. */
function hold(
  proxy: Proxy,
  request: Request,
): { readonly reached: Promise<void>; readonly letGo: () => void } {
  let letGo = () => {};
  const until = new Promise<void>((resolve) => (letGo = resolve));
  const there = new Promise<void>((resolve) => {
    proxy.rule({ match: matching(request, resolve), do: { until } });
  });
  return { reached: there, letGo };
}

async function proxyOf(node: string, { onTestFinished }: TestContext): Promise<Proxy> {
  const { agent } = services.node(node);
  const proxy = await startProxy(agent);
  onTestFinished(() => proxy.close());
  return proxy;
}

let names = 0;
/** A service on both nodes, of which one may be offline. */
const gated = (context: TestContext, args: readonly string[] = ['--maintenance']) =>
  startGated(services, context, { name: `kill-${++names}`, args: ['--gate-stable', '0', ...args] });

/** Starts a run on web01, and kills it at the moment. */
async function killAt(
  context: TestContext,
  at: Gated,
  moment: Request & Pick<Moment, 'done'>,
): Promise<void> {
  const proxy = await proxyOf('web01', context);
  const held = reached(proxy, moment);
  const node = at.start('web01', { agent: proxy, part: { beats: 1 } });
  await held;
  await kill(node);
}

async function kill(node: Node): Promise<void> {
  node.send('SIGKILL');
  await endsWith(137, node);
}

const lockOf = ({ name }: Gated) => services.server.kv.get(`runlock/.gate/${name}`);

/** What is left is this, and the maintenance names the run: that of the claim, unless given. */
async function expectLeft(at: Gated, { claim, locked, out }: Left, runId?: string): Promise<void> {
  const stored = await at.fleet.claim();
  expect(stored?.state).toBe(claim ? 'running' : undefined);
  expect((await lockOf(at))?.Session !== undefined).toBe(locked);
  const run = runId ?? stored?.run ?? 'none';
  expect(await services.node('web01').maintenances(at.name)).toEqual(out ? [`runlock ${run}`] : []);
  await at.watcher.untilOffline(...(out ? ['web01'] : []));
}

type Env = Readonly<Record<string, string>>;

/** `runlock <args>`, which ends with the test at the latest. */
function start({ onTestFinished }: TestContext, env: Env, args: readonly string[]): Spawned {
  const running = spawnRunlock({ env }, args);
  onTestFinished(() => running.end());
  return running;
}

const enterNow = ({ name }: Gated) => ['gate', 'enter', '--service', name, '--gate-stable', '0'];
const leave = (node: string, { name }: Gated) =>
  spawnRunlock(services.node(node).agent, ['gate', 'leave', '--service', name]).ended;

/** As Consul does it at the end of its TTL. */
async function endSession(id: string | undefined): Promise<void> {
  if (id !== undefined) await services.server.http('PUT', `/v1/session/destroy/${id}`);
}

const endLock = async (at: Gated) => endSession((await lockOf(at))?.Session);

/** web02 wants to go out of service too: not while web01 is, nor while its lock is held; and then it does. */
async function expectWithinLimit(
  context: TestContext,
  at: Gated,
  { left, inTime }: Pick<Moment, 'left' | 'inTime'>,
): Promise<void> {
  const proxy = await proxyOf('web02', context);
  const second = start(context, proxy.env, enterNow(at));
  if (left.out) {
    const closed = await second.ended;
    expect(closed.status, closed.stderr).toBe(75);
    expect(closed.stdout).toMatch(/web01 \(.*runlock /);
  } else {
    if (left.locked) {
      await proxy.seen((request) => STEPS.watch(request) && request.path.includes(at.name));
      expect(await services.node('web02').maintenances(at.name)).toEqual([]);
      if (!inTime) await endLock(at);
    }
    const entered = await second.ended;
    expect(entered.status, entered.stderr).toBe(0);
    await at.watcher.untilOffline('web02');
    expect(await leave('web02', at)).toMatchObject({ status: 0 });
  }
  if (!inTime) await endLock(at);
  expect(await at.watcher.most()).toBeLessThanOrEqual(1);
}

/** The node's next run ends well and leaves nothing behind. */
async function expectPutRight(at: Gated): Promise<void> {
  await endsWith(0, at.start('web01', { part: { beats: 1 } }));
  await expectAllWell(at);
}

async function expectAllWell(at: Gated): Promise<void> {
  await at.untilNothingLeft('web01');
  await at.watcher.untilOffline();
  expect(await at.watcher.most()).toBeLessThanOrEqual(1);
  expect(await at.fleet.broken()).toEqual([]);
}

describe.concurrent('a run whose agent', LONG, () => {
  test.for(['drop-before', 'drop-after'] as const)(
    'loses each request of the gate once (%s): goes out of service and comes back',
    async (fault, context) => {
      const at = await gated(context);
      const proxy = await proxyOf('web01', context);
      const steps = ['gate lock', 'agent checks', 'gate proof', 'maintenance on', 'maintenance off'] as const;
      for (const step of steps) proxy.rule({ match: STEPS[step], times: 1, do: fault });
      await endsWith(0, at.start('web01', { agent: proxy, part: { beats: 1 } }));
      for (const step of steps) expect(proxy.requests.filter(STEPS[step]).length).toBeGreaterThan(1);
      expect(await at.watcher.everOffline()).toEqual(['web01']);
      await expectAllWell(at);
    },
  );

  test.for([
    ['never takes it out of service', 'hang'],
    ['takes it out of service, and never says so', { done: () => undefined }],
  ] as const)('%s: nothing is started, 69, and it is in service', async ([, silent], context) => {
    const at = await gated(context);
    const proxy = await proxyOf('web01', context);
    proxy.rule({ match: STEPS['maintenance on'], do: silent });
    const node = at.start('web01', { agent: proxy });
    await endsWith(69, node);
    expect(node.stderr()).toMatch(/the agent at .* did not put web01 into maintenance in time/);
    expect(node.stderr()).toMatch(
      /web01 may still go into maintenance .*'runlock gate leave --service kill-/,
    );
    await expectAllWell(at);
  });

  test('never takes it out of service by hand: 69, and it is in service', async (context) => {
    const at = await gated(context);
    const proxy = await proxyOf('web01', context);
    proxy.rule({ match: STEPS['maintenance on'], do: 'hang' });
    const { status, stderr } = await start(context, proxy.env, enterNow(at)).ended;
    expect(status).toBe(69);
    expect(stderr).toMatch(/^runlock: web01 may still go into maintenance .*\nrunlock: the agent at .*\n$/);
    await expectAllWell(at);
  });

  test('takes it out of service too late: it says so, and its next run puts it right', async (context) => {
    const at = await gated(context);
    const proxy = await proxyOf('web01', context);
    proxy.rule({ match: STEPS['maintenance on'], do: 'late' });
    const node = at.start('web01', { agent: proxy });
    await endsWith(69, node);
    expect(node.stderr()).toMatch(
      /web01 may still go into maintenance .*'runlock gate leave --service kill-/,
    );
    await expectLeft(at, NOTHING);
    await proxy.release();
    await at.watcher.untilOffline('web01');
    expect(await services.node('web01').maintenances(at.name)).toEqual([
      expect.stringMatching(/^runlock \S+$/),
    ]);
    await expectWithinLimit(context, at, { left: { ...NOTHING, out: true } });
    await expectPutRight(at);
  });
});

/** The first takes as long as a session that is not renewed lives. */
const MOMENTS: readonly Moment[] = [
  {
    ...{ at: 'takes the lock of the gate, and never hears of it', step: 'gate lock', done: true },
    ...{ left: LOCKED, inTime: true },
  },
  { at: 'goes out of service, and never hears of it', step: 'maintenance on', done: true, left: ENTERING },
  { at: 'gives its slot back, and never hears of it', step: 'release', done: true, left: NOTHING },
  { at: 'asks for its slot', step: 'grant', left: NOTHING },
  { at: 'has its slot, and asks for the lock of the gate', step: 'gate lock', left: CLAIM },
  { at: 'has the lock of the gate, and looks', step: 'agent checks', left: LOCKED },
  { at: 'has looked, and is about to go out of service', step: 'gate proof', left: LOCKED },
  { at: 'goes out of service, and its agent never hears of it', step: 'maintenance on', left: LOCKED },
  { at: 'is out of service, and makes sure of its lock', step: 'gate proof', nth: 2, left: ENTERING },
  { at: 'is out of service, and gives the lock back', step: 'session destroy', nth: 2, left: ENTERING },
  { at: 'goes back in service, and its agent never hears of it', step: 'maintenance off', left: OUT },
  { at: 'goes back in service, and never hears of it', step: 'maintenance off', done: true, left: CLAIM },
  { at: 'is back in service, and gives its slot back', step: 'release', left: CLAIM },
];

const says = ({ claim, locked, out }: Left) =>
  [
    claim ? 'claim stays' : 'no claim',
    ...(out ? ['stays out'] : []),
    ...(locked ? ['locked for others'] : []),
  ].join(', ');

const named = (moments: readonly Moment[]) =>
  moments.map((moment) => [moment.at, says(moment.left), moment] as const);

describe.concurrent('SIGKILL of a run, its node’s next run puts all right: it', LONG, () => {
  test.for(named(MOMENTS))('%s: %s', async ([, , moment], context) => {
    const at = await gated(context);
    await killAt(context, at, moment);
    await expectLeft(at, moment.left);
    await expectWithinLimit(context, at, moment);
    // It has neither ticket nor slot: nobody asks for it, nor waits for it.
    if (moment.step === 'release' && moment.done) await endSession((await at.fleet.sessions())[0]);
    await expectPutRight(at);
  });

  test('waits outside a closed gate: nothing stays', async (context) => {
    const at = await gated(context);
    const hand = { service: at.name, reason: 'disk change' };
    await services.node('web02').maintain(true, hand);
    await at.watcher.untilOffline('web02');
    const node = at.start('web01');
    await node.says(/web01 is waiting for the gate/, SOON_MS);
    await kill(node);
    expect(await at.fleet.keys()).toEqual([]);
    await services.node('web02').maintain(false, hand);
    await at.watcher.untilOffline();
    await expectLeft(at, NOTHING);
    await expectWithinLimit(context, at, { left: NOTHING });
    await expectPutRight(at);
  });

  test('settles: its claim stays, it stays out of service, and counts', async (context) => {
    const at = await gated(context);
    const node = at.start('web01', { args: ['--settle', '1h'] });
    await node.says(/is in maintenance/, SOON_MS);
    await kill(node);
    await expectLeft(at, OUT);
    await expectWithinLimit(context, at, { left: OUT });
    await expectPutRight(at);
  });

  test('has its command run: the command dies, its claim stays, it stays out, and counts', async (context) => {
    const at = await gated(context);
    const node = at.start('web01', { part: { grandchild: true } });
    const run = await node.running(SOON_MS);
    await kill(node);
    await untilDead(run, SOON_MS);
    await expectLeft(at, OUT);
    await expectWithinLimit(context, at, { left: OUT });
    await expectPutRight(at);
  });

  test('has its command run, and its guard dies too: it stays out as long as the orphan lives', async (context) => {
    const at = await gated(context);
    const node = at.start('web01');
    const run = await node.running(SOON_MS);
    const guard = await node.guard();
    node.send('SIGSTOP');
    process.kill(guard, 'SIGKILL');
    node.send('SIGKILL');
    await untilGone(node.pid, SOON_MS);
    await expectLeft(at, OUT);
    await expectWithinLimit(context, at, { left: OUT });
    const again = at.start('web01');
    await endsWith(75, again);
    expect(again.stderr()).toContain('processes of an earlier run of ');
    await expectLeft(at, OUT);
    livingOf(run).forEach(end);
    await untilDead(run, SOON_MS);
    // The shell's last `sleep` ends by itself and counts until then.
    await eventually(() => endsWith(0, at.start('web01', { part: { beats: 1 } })), SOON_MS);
    await expectAllWell(at);
  });

  test('waits for the health of its service: its claim stays, it stays out of service, and counts', async (context) => {
    const at = await gated(context, ['--maintenance', '--healthy-within', '1h']);
    const proxy = await proxyOf('web01', context);
    const node = at.start('web01', { agent: proxy });
    await node.running(SOON_MS);
    await at.breakDown('web01', 500);
    const isWaiting: Match = ({ path }) => path.startsWith('/v1/health/service/') && path.includes('index=');
    const before = proxy.requests.filter(isWaiting).length;
    node.tell();
    await proxy.seen(isWaiting, before + 1);
    await kill(node);
    await expectLeft(at, OUT);
    await expectWithinLimit(context, at, { left: OUT });
    await at.answer('web01', 200);
    await expectPutRight(at);
  });

  test('is out of service with one of two services: each says so, both locks keep others out', async (context) => {
    const other = `kill-other-${names}`;
    await services.offer(other);
    const at = await gated(context, ['--service', other, '--maintenance']);
    await killAt(context, at, { step: 'maintenance on', nth: 2 });
    const run = (await at.fleet.claim())?.run;
    const modes = () =>
      Promise.all([at.name, other].map((name) => services.node('web01').maintenances(name)));
    expect((await modes()).flat()).toEqual([`runlock ${run}`]);
    const locks = [await lockOf(at), await lockOf({ ...at, name: other })].map((lock) => lock?.Session);
    expect(locks[0]).toBeDefined();
    expect(locks[1]).toBe(locks[0]);
    await endLock(at);
    await expectPutRight(at);
    expect(await modes()).toEqual([[], []]);
  });
});

describe.concurrent('SIGKILL of a run, and an operator: it', LONG, () => {
  // One that may still be entering, and one that is about to leave.
  const out = MOMENTS.filter(({ step, left }) => left.out && step.startsWith('maintenance'));
  test.for(out.map((moment) => [moment.at, moment] as const))(
    '%s: gate leave ends that, and keeps its claim',
    async ([, moment], context) => {
      const at = await gated(context);
      await killAt(context, at, moment);
      await expectLeft(at, moment.left);
      const left = await leave('web01', at);
      expect(left).toMatchObject({ status: 0, stdout: `web01 is back from maintenance: ${at.name}\n` });
      const now = { ...moment.left, out: false };
      await expectLeft(at, now);
      expect(await leave('web01', at)).toMatchObject({ status: 0, stdout: 'web01 is not in maintenance\n' });
      await expectWithinLimit(context, at, { left: now });
      await expectPutRight(at);
    },
  );

  test('settles, and its session is over: release --force says how its maintenance ends', async (context) => {
    const at = await gated(context);
    const node = at.start('web01', { args: ['--settle', '1h'] });
    await node.says(/is in maintenance/, SOON_MS);
    await kill(node);
    await expectLeft(at, OUT);
    const slot = await services.server.kv.get(`runlock/${at.name}/.slot/0/lock`);
    await endSession(slot?.Session);
    const release = ['release', at.name, '--owner', 'web01', '--force'];
    const released = await spawnRunlock(services.node('web01').agent, release).ended;
    expect(released.status, released.stderr).toBe(0);
    expect(released.stderr).toMatch(/still in maintenance set by runlock .*'runlock gate leave/);
    await at.watcher.untilOffline('web01');
    await expectWithinLimit(context, at, { left: OUT });
    expect(await leave('web01', at)).toMatchObject({ status: 0 });
    await at.untilNothingLeft('web01');
    await expectWithinLimit(context, at, { left: NOTHING });
  });
});

describe.concurrent('SIGKILL of runlock gate, gate leave puts all right:', LONG, () => {
  const ENTER: readonly Moment[] = [
    { at: 'enter asks for the lock', step: 'gate lock', left: NOTHING },
    { at: 'enter takes the lock, and never hears of it', step: 'gate lock', done: true, left: LOCKED },
    { at: 'enter has looked, and is about to go out of service', step: 'gate proof', left: LOCKED },
    {
      at: 'enter goes out of service, and its agent never hears of it',
      step: 'maintenance on',
      left: LOCKED,
    },
    {
      ...{ at: 'enter goes out of service, and never hears of it', step: 'maintenance on', done: true },
      left: ENTERING,
    },
    { at: 'enter is out of service, and makes sure of its lock', step: 'gate proof', nth: 2, left: ENTERING },
    {
      at: 'enter is out of service, and gives the lock back',
      step: 'session destroy',
      nth: 2,
      left: ENTERING,
    },
    { at: 'leave goes back in service, and its agent never hears of it', step: 'maintenance off', left: OUT },
    {
      at: 'leave goes back in service, and never hears of it',
      step: 'maintenance off',
      done: true,
      left: CLAIM,
    },
  ].map((moment) => ({ ...moment, left: { ...moment.left, claim: false } })) as Moment[];

  test.for(named(ENTER))('%s: %s', async ([, , moment], context) => {
    const at = await gated(context);
    const { env } = services.node('web01').agent;
    const byHand = { RUNLOCK_RUN_ID: `hand-${at.name}` };
    const verb = moment.at.split(' ')[0] ?? '';
    if (verb === 'leave')
      expect(await start(context, { ...env, ...byHand }, enterNow(at)).ended).toMatchObject({ status: 0 });
    const proxy = await proxyOf('web01', context);
    const held = reached(proxy, moment);
    const args = ['gate', verb, '--service', at.name, '--gate-stable', '0'];
    const gate = start(context, { ...proxy.env, ...byHand }, args);
    await held;
    gate.signal('SIGKILL');
    await gate.ended;
    await expectLeft(at, moment.left, `hand-${at.name}`);
    await expectWithinLimit(context, at, moment);
    expect(await leave('web01', at)).toMatchObject({ status: 0 });
    await expectLeft(at, NOTHING);
    await expectWithinLimit(context, at, { left: NOTHING });
    await at.untilNothingLeft('web01');
  });
});

describe.concurrent('TERM of a run that', LONG, () => {
  const TOLD = [
    ['goes out of service', { step: 'maintenance on', nth: 1, status: 143 }],
    ['is out of service, and makes sure of its lock', { step: 'gate proof', nth: 2, status: 143 }],
    ['is out of service, and gives the lock back', { step: 'session destroy', nth: 2, status: 143 }],
    ['goes back in service', { step: 'maintenance off', nth: 1, status: 0 }],
    ['gives its slot back', { step: 'release', nth: 1, status: 0 }],
  ] as const;
  test.for(TOLD)('%s: neither slot nor maintenance is left', async ([, { step, nth, status }], context) => {
    const at = await gated(context);
    const proxy = await proxyOf('web01', context);
    const held = hold(proxy, { step, nth });
    // One that was told in time does not run its command.
    const node = at.start('web01', {
      agent: proxy,
      ...(status === 0 && { part: { beats: 1 } }),
    });
    await held.reached;
    node.send('SIGTERM');
    held.letGo();
    await endsWith(status, node);
    await at.untilNothingLeft('web01');
    expect(await at.fleet.broken()).toEqual([]);
  });
});

describe.concurrent('TERM of runlock gate', LONG, () => {
  const cases = [
    ['enter', 'maintenance on', 'the node is in service', NOTHING],
    ['leave', 'maintenance off', 'the node stays out of service, and counts', { ...NOTHING, out: true }],
  ] as const;
  test.for(cases)('%s on its way (%s): %s', async ([verb, step, , left], context) => {
    const at = await gated(context);
    const { env } = services.node('web01').agent;
    const byHand = { RUNLOCK_RUN_ID: `hand-${at.name}` };
    if (verb === 'leave')
      expect(await start(context, { ...env, ...byHand }, enterNow(at)).ended).toMatchObject({ status: 0 });
    const proxy = await proxyOf('web01', context);
    const held = hold(proxy, { step });
    const args = ['gate', verb, '--service', at.name, '--gate-stable', '0'];
    const gate = start(context, { ...proxy.env, ...byHand }, args);
    await held.reached;
    gate.signal('SIGTERM');
    // To leave is given up at once; what is being entered is undone.
    if (verb === 'enter') held.letGo();
    expect((await gate.ended).status).toBe(143);
    held.letGo();
    await expectLeft(at, left, `hand-${at.name}`);
    await expectWithinLimit(context, at, { left });
    expect(await leave('web01', at)).toMatchObject({ status: 0 });
    await expectAllWell(at);
  });
});
