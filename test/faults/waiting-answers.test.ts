// Who waits for a state, and who deletes one, while answers are cut, wrong, refused or never come.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ownStage } from '../support/own-stage.ts';
import { startProxy } from '../support/proxy.ts';
import type { Action, Match, Proxy } from '../support/proxy.ts';
import { FAULTS, LOSSES, writes } from '../support/proxy-steps.ts';
import { useAgent } from '../support/use-agent.ts';
import { WAITERS, allHear, startWaiters } from '../support/waiters.ts';

const agent = useAgent();
const guarded = useAgent({ acl: true });

const LONG = { timeout: 200_000 };

type Stage = ReturnType<typeof ownStage>;
type At = Parameters<Stage['start']>[0];

const state = async (stage: Stage, at: At, ...args: string[]) => {
  const { status, stderr } = await stage.start(at, ['state', ...args]).ended;
  expect(status, stderr).toBe(0);
};

const isWatch: Match = ({ path }) => path.startsWith('/v1/kv/') && path.includes('index=');
const isLook: Match = ({ path }) => path.startsWith('/v1/txn');

const json = { 'content-type': 'application/json', 'x-consul-index': '9' };
const entry = '[{"Key":"runlock/.state/x/.value","Value":"e30=","CreateIndex":9,"ModifyIndex":9}]';
const without = (body: string, index?: string): Action => ({
  status: 200,
  body,
  headers: {
    'content-type': 'application/json',
    ...(index !== undefined && { 'x-consul-index': index }),
  },
});

/** What no agent that is well says to a blocking query. */
const ODD: Readonly<Record<string, Action>> = {
  ...FAULTS,
  'half of its JSON': { status: 200, body: entry.slice(0, 30), headers: json },
  'JSON of something else': { status: 200, body: '[{"status":"ok"}]', headers: json },
  'a list of nothing': { status: 200, body: '[null]', headers: json },
  'an empty list': { status: 200, body: '[]', headers: json },
  'no index': without(entry),
  'an index that is no number': without(entry, 'soon'),
  'a page': { status: 200, body: '<html>log in</html>', headers: { 'content-type': 'text/html' } },
  'a page that says 502': { status: 502, body: '<html>Bad Gateway</html>' },
  'an error of Consul’s (500)': { status: 500, body: 'rpc error making call: EOF' },
  'a refusal (403)': { status: 403, body: 'Permission denied' },
};
/** They take as long as a request may. */
const { hang, ...QUICK } = ODD;

describe.concurrent('whoever waits for a state outlives', LONG, () => {
  /** One of each waits, and the next watch of all is answered so. */
  const outlives = async (path: string, odd: Action) => {
    using stage = ownStage();
    await using proxy = await startProxy(agent);
    await state(stage, agent, 'set', path, '1');
    const waiters = await startWaiters(stage, proxy, path);
    await proxy.seen(isWatch, waiters.length);
    proxy.rule({ match: isWatch, times: waiters.length, do: odd });
    const before = proxy.requests.length;
    await state(stage, agent, 'set', path, '0');
    await proxy.seen(isWatch, waiters.length * 2);
    await state(stage, agent, 'set', path, '2');
    await allHear(waiters);
    return proxy.requests.length - before;
  };
  const name = (words: string) => words.replaceAll(/[^a-z0-9]+/gi, '-').toLowerCase();

  test.for(Object.keys(QUICK))('a watch that is answered by %s', async (odd) => {
    const requests = await outlives(`watch/${name(odd)}`, ODD[odd] ?? 'cut');
    // A dozen of them are those of `acquire`, from its session to its claim.
    expect(requests).toBeLessThan(45);
  });

  test('a watch that is never answered: it is asked again when its time is over', async () => {
    await outlives('watch/never', hang ?? 'hang');
  });

  test.for(Object.keys(QUICK))('a look at two states that is answered by %s, twice', async (odd) => {
    using stage = ownStage();
    await using proxy = await startProxy(agent);
    const path = `look/${name(odd)}`;
    await state(stage, agent, 'set', path, '1');
    const both = ['--until', `state:${path}=2`, '--until', `state:${path}/other!=2`];
    const waiting = stage.start(proxy, ['wait', '-v', '--timeout', '100s', ...both]);
    await proxy.seen(isWatch, 2);
    proxy.rule({ match: isLook, times: 2, do: ODD[odd] ?? 'cut' });
    await state(stage, agent, 'set', path, '2');
    const { status, stderr } = await waiting.ended;
    expect(status, stderr).toBe(0);
  });

  test('an index that goes back, and hears what is set after it', async () => {
    using stage = ownStage();
    await using proxy = await startProxy(agent);
    await state(stage, agent, 'set', 'back', '1');
    const waiters = await startWaiters(stage, proxy, 'back');
    await proxy.seen(isWatch, waiters.length);
    const { text } = await agent.http('GET', '/v1/kv/runlock/.state/back/.value');
    const back = { status: 200, body: text, headers: { ...json, 'x-consul-index': '1' } };
    proxy.rule({ match: isWatch, times: waiters.length, do: back });
    proxy.sever();
    await proxy.seen(
      ({ path }) => decodeURIComponent(path).includes('/.state/back/') && !path.includes('index='),
      3,
    );
    await state(stage, agent, 'set', 'back', '2');
    await allHear(waiters);
  });

  test('an index of 0: the next query waits all the same, instead of asking without end', async () => {
    using stage = ownStage();
    await using proxy = await startProxy(agent);
    await state(stage, agent, 'set', 'zero', '1');
    const { text } = await agent.http('GET', '/v1/kv/runlock/.state/zero/.value');
    const zero = { status: 200, body: text, headers: { ...json, 'x-consul-index': '0' } };
    const isAtOnce: Match = ({ path }) =>
      decodeURIComponent(path).includes('/.state/zero/') && !path.includes('index=');
    const atOnce = () => proxy.requests.filter(isAtOnce).length;
    const waiters = await startWaiters(stage, proxy, 'zero');
    await proxy.seen(isWatch, waiters.length);
    const before = atOnce();
    proxy.rule({ match: isWatch, times: waiters.length, do: zero });
    proxy.rule({ match: isAtOnce, do: zero });
    proxy.sever();
    await proxy.seen(({ path }) => /[?&]index=1(&|$)/.test(path), waiters.length);
    proxy.clear();
    await state(stage, agent, 'set', 'zero', '2');
    await allHear(waiters);
    expect(atOnce() - before).toBeLessThanOrEqual(2 * waiters.length);
  });

  test('a token that is replaced in its file, the old one deleted', async () => {
    using stage = ownStage();
    const { as, folder, revoke } = await tokens(stage);
    await state(stage, guarded, 'set', 'rotated', '1');
    const waiters = await startWaiters(stage, as, 'rotated');
    const second = await guarded.token(RIGHTS);
    writeFileSync(join(folder, 'token'), second);
    await revoke();
    await state(stage, guarded, 'set', 'rotated', '2');
    await allHear(waiters);
  });
});

const RIGHTS = `key_prefix "runlock/" { policy = "write" }
session_prefix "" { policy = "write" }
node_prefix "" { policy = "read" }
agent_prefix "" { policy = "read" }`;

/** Whoever asks with the token of a file. */
async function tokens(stage: Stage) {
  const { folder } = stage;
  const first = await guarded.token(RIGHTS);
  writeFileSync(join(folder, 'token'), first);
  const file = { CONSUL_HTTP_TOKEN: '', CONSUL_HTTP_TOKEN_FILE: join(folder, 'token') };
  const revoke = async () => {
    const self = await guarded.http('GET', '/v1/acl/token/self', undefined, { token: first });
    await guarded.http('DELETE', `/v1/acl/token/${(self.json() as { AccessorID: string }).AccessorID}`);
  };
  return { as: { env: { ...guarded.env, ...file } }, folder, revoke };
}

describe.concurrent('whoever waits for a state and', LONG, () => {
  test.for(Object.keys(WAITERS))('has its token deleted ends with 77 (%s)', async (name) => {
    using stage = ownStage();
    const { as, revoke } = await tokens(stage);
    const path = `deleted/${name.replace(/[^a-z]+/g, '-')}`;
    await state(stage, guarded, 'set', path, '1');
    const waiter = WAITERS[name]?.(stage, as, path);
    await waiter?.waits();
    await revoke();
    // Wakes its watch.
    await state(stage, guarded, 'set', path, '0');
    const ended = await waiter?.running.ended;
    expect(ended?.status, ended?.stderr).toBe(77);
  });

  test.for(Object.keys(WAITERS))(
    'is refused from now on ends with 77, and names the rule (%s)',
    async (name) => {
      using stage = ownStage();
      await using proxy = await startProxy(agent);
      const path = `refused/${name.replace(/[^a-z]+/g, '-')}`;
      await state(stage, agent, 'set', path, '1');
      const waiter = WAITERS[name]?.(stage, proxy, path);
      await waiter?.waits();
      proxy.rule({ do: { status: 403, body: 'Permission denied' } });
      proxy.sever();
      const ended = await waiter?.running.ended;
      expect(ended?.status, ended?.stderr).toBe(77);
      expect(ended?.stderr).toMatch(/needs the rule: key(_prefix)? "runlock\//);
    },
  );
});

describe.concurrent('an answer to state delete', LONG, () => {
  const isDelete = writes('delete-cas', '/.value');

  test.for(Object.keys(LOSSES))('(%s) is lost: the state is gone, and what it was is said', async (loss) => {
    using stage = ownStage();
    await using proxy: Proxy = await startProxy(agent);
    const path = `delete/${loss}`;
    await state(stage, agent, 'set', path, '7');
    proxy.rule({ match: isDelete, times: 1, do: LOSSES[loss] ?? 'cut' });
    const { status, stdout } = await stage.start(proxy, ['state', 'delete', path]).ended;
    expect({ status, stdout }).toEqual({ status: 0, stdout: expect.stringContaining('7') as string });
    await state(stage, agent, 'set', path, '8');
    await proxy.release();
    expect((await agent.kv.get(`runlock/.state/${path}/.value`))?.Value).toContain('"8"');
  });
});
