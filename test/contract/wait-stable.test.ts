// `runlock wait --stable`: what came and went between two looks begins the time anew, and what is elsewhere does not.
import { describe, expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { startProxy } from '../support/proxy.ts';
import type { Proxy, ProxyRequest } from '../support/proxy.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

const isLook = ({ path }: ProxyRequest) => path.startsWith('/v1/txn');
const isWatch = ({ path }: ProxyRequest) => /[?&]index=\d/.test(path);
const put = (key: string, value = '{}') => agent.kv.put(key, value);
const state = async (...args: string[]) => {
  expect((await runlock(agent, ['state', ...args])).status).toBe(0);
};

/**
 * Does something while a wait with `--stable 2s` holds, and nobody looks: its watches hear of it only afterwards. How long
 * the wait took from there on, in seconds.
 */
async function secondsFrom(condition: string, unseen: () => Promise<unknown>): Promise<number> {
  await using proxy = await startProxy(agent);
  const words = ['wait', '-v', '--stable', '2s', '--timeout', '40s', '--until', condition];
  const waiting = startRunlock(proxy, words);
  await waiting.says(/ holds: /);
  await watchHeld(proxy);
  await unseen();
  const fromMs = performance.now();
  proxy.clear();
  expect((await waiting.ended).status).toBe(0);
  return (performance.now() - fromMs) / 1_000;
}

/** No answer of a watch comes any more until the rules are cleared; those under way are closed. */
async function watchHeld(proxy: Proxy): Promise<void> {
  await proxy.seen(isWatch);
  proxy.rule({ match: isWatch, do: 'drop-before' });
  proxy.sever();
}

describe('the time of --stable begins anew after', () => {
  const ended = { bare: 'runlock/.agents/n' };
  const cases: [string, string, () => Promise<unknown>][] = [
    [
      'a state that was set and deleted',
      'not:state:gone/a',
      async () => {
        await state('set', 'gone/a', '1');
        await state('delete', 'gone/a');
      },
    ],
    [
      'a state, asked for another value, that was set to it and deleted',
      'state:gone/b!=1',
      async () => {
        await state('set', 'gone/b', '1');
        await state('delete', 'gone/b');
      },
    ],
    [
      'a freeze that was set and ended',
      'not:frozen:gone/ice',
      async () => {
        await runlock(agent, ['freeze', 'gone/ice', '--reason', 'r']);
        await runlock(agent, ['thaw', 'gone/ice']);
      },
    ],
    [
      'a freeze of a group above it',
      'not:frozen:above/ice',
      async () => {
        await runlock(agent, ['freeze', 'above', '--reason', 'r']);
        await runlock(agent, ['thaw', 'above']);
      },
    ],
    [
      'a run that came and went, in an idle group',
      'idle:gone/idle',
      () => groupOf(agent, 'gone/idle').exec('n', '--', 'true'),
    ],
    [
      'a failed run that was cleared',
      'not:blocked:gone/blocked',
      async () => {
        await groupOf(agent, 'gone/blocked').exec('n', '--', 'false');
        await runlock(agent, ['release', 'gone/blocked', '--owner', 'n']);
      },
    ],
    [
      'a run of the node that came and went',
      'not:active:n@gone/active',
      () => groupOf(agent, 'gone/active').exec('n', '--', 'true'),
    ],
    [
      'an agent that came and went',
      'not:agent:n',
      async () => {
        await put(ended.bare);
        await agent.kv.delete(ended.bare);
      },
    ],
  ];

  test.each(cases)('%s, though all looks alike', async (_name, condition, unseen) => {
    // Others write all the time, elsewhere.
    await put('other/before');
    expect(
      await secondsFrom(condition, async () => {
        await unseen();
        await put('other/after');
      }),
    ).toBeGreaterThan(2);
  });
});

describe('the time of --stable goes on while', () => {
  const busy = async (write: (i: number) => Promise<unknown>, condition: string) => {
    const words = ['wait', '-v', '--stable', '2s', '--timeout', '40s', '--until', condition];
    const waiting = startRunlock(agent, words);
    await waiting.says(/ holds: /);
    const fromMs = performance.now();
    let over = false;
    const ended = waiting.ended.finally(() => (over = true));
    for (let i = 0; !over; i += 1) await write(i);
    expect((await ended).status).toBe(0);
    // Writes between its reads may begin it anew, now and then; each write would never let it end.
    expect((performance.now() - fromMs) / 1_000).toBeLessThan(10);
  };

  test.each([
    'not:state:quiet/a',
    'idle:quiet',
    'not:blocked:quiet',
    'not:active:n@quiet',
    'not:frozen:quiet',
  ])('others write elsewhere: %s', (condition) => busy((i) => put('other/key', String(i)), condition));

  test('a group that was never frozen is the only busy one: not:frozen:', () => {
    const group = groupOf(agent, 'lively');
    return busy(() => group.exec('n', '--', 'true'), 'not:frozen:lively');
  });

  test('other nodes run in the group: not:active:', async () => {
    const group = groupOf(agent, 'lively2');
    await group.exec('n', '--', 'true');
    return busy(() => group.exec('m', '--', 'true'), 'not:active:n@lively2');
  });

  test('its neighbours change, and the token may not write: not:state:', async () => {
    await state('set', 'near/b', '0');
    await busy((i) => state('set', 'far/b', String(i)), 'not:state:near/a');
  });
});

test('without --stable no request is made for what came and went', async () => {
  await using proxy = await startProxy(agent);
  const { status } = await runlock(proxy, ['wait', '--timeout', '5s', '--until', 'idle:never/used']);
  expect(status).toBe(0);
  expect(proxy.requests.filter((request) => !isLook(request)).map(({ path }) => path)).toEqual([
    expect.stringContaining('may-read'),
  ]);
});
