// `runlock wait`: each kind of condition, each option, each exit code, through the program.
import { describe, expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { RUNLOCK } from '../support/program.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { startInTerminal } from '../support/terminal.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

const state = async (...args: string[]) => {
  const { status } = await runlock(agent, ['state', ...args]);
  expect(status).toBe(0);
};
const wait = (...args: string[]) => startRunlock(agent, ['wait', '--timeout', '40s', ...args]);
/** One look: 0 or 75. */
const look = async (...args: string[]) => (await runlock(agent, ['wait', '--timeout', '0', ...args])).status;

/** Whether it waits: it has looked, and goes on. */
const waits = (running: ReturnType<typeof wait>, text: string) =>
  running.says(new RegExp(`${text.replaceAll(/[.*=!+?]/g, '\\$&')} (?:does not hold|holds)`));

const service = (name: string, ...ids: string[]) =>
  Promise.all(
    ids.map((id) =>
      agent.http('PUT', '/v1/agent/service/register', {
        ...{ Name: name, ID: `${name}-${id}` },
        Check: { CheckID: `${name}-${id}`, TTL: '10m', Status: 'critical' },
      }),
    ),
  );
const health = (id: string, how: 'pass' | 'fail' | 'warn') =>
  agent.http('PUT', `/v1/agent/check/${how}/${id}`);

describe('wait --until ends as soon as it holds, with 0 and without a word', () => {
  const kinds: [string, string, () => Promise<unknown>][] = [
    ['state: is set', 'state:k/set', () => state('set', 'k/set', '1')],
    ['state: has a value', 'state:k/value=42', () => state('set', 'k/value', '42')],
    ['state: has another value', 'state:k/other!=1', () => state('set', 'k/other', '2')],
    ['state: is not set', 'not:state:k/gone', () => state('delete', 'k/gone')],
    ['frozen:', 'frozen:k/frozen', () => runlock(agent, ['freeze', 'k/frozen', '--reason', 'r'])],
    ['not:frozen:', 'not:frozen:k/thawed', () => runlock(agent, ['thaw', 'k/thawed'])],
    ['blocked:', 'blocked:k/blocked', () => groupOf(agent, 'k/blocked').exec('n', '--', 'false')],
    ['not:blocked:', 'not:blocked:k/freed', () => runlock(agent, ['release', 'k/freed', '--owner', 'n'])],
    ['good:', 'good:n@k/good', () => groupOf(agent, 'k/good').exec('n', '--', 'true')],
    ['good: of all', 'good:*@k/all', () => groupOf(agent, 'k/all').exec('b', '--', 'true')],
    ['healthy:', 'healthy:shop:2', () => health('shop-a', 'pass')],
    ['not:healthy:', 'not:healthy:mail', () => health('mail-a', 'fail')],
  ];
  const before: Record<string, () => Promise<unknown>> = {
    'state: has a value': () => state('set', 'k/value', '41'),
    'state: has another value': () => state('set', 'k/other', '1'),
    'state: is not set': () => state('set', 'k/gone', '1'),
    'not:frozen:': () => runlock(agent, ['freeze', 'k/thawed', '--reason', 'r']),
    'not:blocked:': () => groupOf(agent, 'k/freed').exec('n', '--', 'false'),
    'good: of all': async () => {
      await groupOf(agent, 'k/all').exec('a', '--', 'true');
      await groupOf(agent, 'k/all').exec('b', '--', 'false');
    },
    'healthy:': async () => {
      await service('shop', 'a', 'b', 'c');
      await health('shop-b', 'warn');
    },
    'not:healthy:': async () => {
      await service('mail', 'a');
      await health('mail-a', 'pass');
    },
  };

  test.each(kinds)('%s', async (name, condition, change) => {
    await before[name]?.();
    const running = wait('-v', '--until', condition);
    await waits(running, condition);
    await change();
    const { status, stdout, stderr } = await running.ended;
    expect({ status, stdout }).toEqual({ status: 0, stdout: '' });
    expect(stderr).toMatch(/runlock: conditions met after \d+s\n$/);
    expect(await runlock(agent, ['wait', '--timeout', '0', '--until', condition])).toEqual({
      ...{ status: 0, stdout: '', stderr: '' },
    });
  });

  test('idle: and not:active: when the run ends, active: when it starts', async () => {
    const group = groupOf(agent, 'k/runs');
    const starts = wait('-v', '--until', 'active:db01@k/runs');
    await waits(starts, 'active:db01@k/runs');
    const holder = await group.hold('db01');
    expect((await starts.ended).status).toBe(0);
    const ends = ['idle:k/runs', 'not:active:db01@k/runs'].map((one) => wait('-v', '--until', one));
    for (const running of ends) await running.says(/has been running sh for \d+s/);
    await holder.end();
    for (const running of ends) expect((await running.ended).status).toBe(0);
  });

  test('agent: when a session has the key of its node', async () => {
    const running = wait('-v', '--until', 'agent:n1');
    await waits(running, 'agent:n1');
    const created = await agent.http('PUT', '/v1/session/create', { TTL: '60s', Behavior: 'delete' });
    const { ID } = created.json() as { ID: string };
    await agent.kv.put('runlock/.agents/n1', '{}', { acquire: ID });
    expect((await running.ended).status).toBe(0);
  });
});

describe('several conditions', () => {
  test('must all hold at one moment; with --any one is enough', async () => {
    await state('set', 's/a', '1');
    expect(await look('--until', 'state:s/a=1', '--until', 'state:s/b=1')).toBe(75);
    expect(await look('--any', '--until', 'state:s/a=1', '--until', 'state:s/b=1')).toBe(0);
    expect(await look('--any', '--until', 'state:s/a=2', '--until', 'state:s/b=1')).toBe(75);
    const running = wait('-v', '--until', 'state:s/a=1', '--until', 'state:s/b=1');
    await waits(running, 'state:s/b=1');
    await state('set', 's/a', '2');
    await waits(running, 'state:s/a=1');
    await state('set', 's/b', '1');
    await running.says(/state:s\/b=1 holds/);
    await state('set', 's/a', '1');
    expect((await running.ended).status).toBe(0);
  });

  test('--while is the contrary of --until, and both are waited for', async () => {
    await state('set', 'w/a', '1');
    await state('set', 'w/b', '1');
    expect(await look('--while', 'state:w/a=2')).toBe(0);
    const running = wait('-v', '--while', 'state:w/a=1', '--until', 'state:w/b=2');
    await waits(running, 'state:w/a=1');
    await state('set', 'w/b', '2');
    await running.says(/state:w\/b=2 holds/);
    await state('delete', 'w/a');
    expect((await running.ended).status).toBe(0);
  });

  test('names the group of those that name none: -g, else default', async () => {
    await groupOf(agent, 'default').exec('n7', '--', 'true');
    await groupOf(agent, 's/group').exec('n7', '--', 'false');
    expect(await look('--until', 'good:n7')).toBe(0);
    expect(await look('--until', 'good:n7', '-g', 's/group')).toBe(75);
    expect(await look('--until', 'good:n7', '-g', 'default', '-g', 's/group')).toBe(75);
  });
});

describe('the end of --timeout', () => {
  test('exits 75 and says what is missing, how it is instead, and who set that', async () => {
    await state('set', 't/a', '41');
    const { status, stdout, stderr } = await runlock(agent, [
      ...['wait', '--timeout', '300ms', '--until', 'state:t/a=42', '--while', 'not:state:t/b'],
    ]);
    expect({ status, stdout }).toEqual({ status: 75, stdout: '' });
    expect(stderr).toMatch(
      /^runlock: timed out after \d+s: state:t\/a=42: t\/a is 41, set by \S+@\S+ \d+s ago; still not:state:t\/b: t\/b is not set\n$/,
    );
  });

  test('with --on-timeout pass exits 0, and still says it', async () => {
    const { status, stderr } = await runlock(agent, [
      ...['wait', '--timeout', '100ms', '--on-timeout', 'pass', '--until', 'state:t/none'],
    ]);
    expect(status).toBe(0);
    expect(stderr).toContain('timed out after 0s: state:t/none: t/none is not set; continuing');
  });

  test('with --timeout 0 comes after one look', async () => {
    await state('set', 't/now', '1');
    expect(await look('--until', 'state:t/now')).toBe(0);
    expect(await look('--until', 'not:state:t/now')).toBe(75);
  });

  test('as JSON: the verdict, and each condition as it is', async () => {
    await state('set', 't/json', '1');
    const run = (until: string) =>
      runlock(agent, ['wait', '--timeout', '0', '--json', '--until', until, '--while', 'idle:t/busy']);
    const { status, stdout } = await run('state:t/json=1');
    expect({ status, said: JSON.parse(stdout) as unknown }).toEqual({
      status: 75,
      said: {
        ...{ v: 1, met: false, any: false, atOnce: true, waitedMs: expect.any(Number) as number },
        conditions: [
          {
            ...{ condition: 'state:t/json=1', wanted: true, asWanted: true },
            is: expect.stringMatching(/^t\/json is 1, set by /) as string,
          },
          { condition: 'idle:t/busy', wanted: false, asWanted: false, is: 't/busy is idle' },
        ],
      },
    });
  });
});

describe('--stable', () => {
  test('begins anew at each change of what a condition rests on, also if it holds all the time', async () => {
    await state('set', 'st/a', '1');
    const running = wait('-v', '--stable', '3s', '--until', 'state:st/a=1');
    await running.says(/state:st\/a=1 holds/);
    let over = false;
    const ended = running.ended.finally(() => (over = true));
    // For longer than it would take without them.
    const untilMs = performance.now() + 4_500;
    while (performance.now() < untilMs) await state('set', 'st/a', '1', '--touch');
    expect(over).toBe(false);
    expect((await ended).status).toBe(0);
  });

  test('is not disturbed by what is no change, nor by neighbours', async () => {
    await state('set', 'st/b', '1');
    const running = wait('--stable', '2s', '--until', 'state:st/b=1');
    const ended = running.ended.then(({ status }) => status);
    for (let i = 0; i < 10; i += 1) {
      await state('set', 'st/b', '1', '--ttl', `${i + 1}h`);
      await state('set', 'st/c', String(i));
    }
    expect(await ended).toBe(0);
  });

  test('notices a run that came and went in an idle group', async () => {
    const running = wait('-v', '--stable', '4s', '--until', 'idle:st/group');
    await running.says(/idle:st\/group holds/);
    const startedMs = performance.now();
    await groupOf(agent, 'st/group').exec('n', '--', 'true');
    expect((await running.ended).status).toBe(0);
    expect(performance.now() - startedMs).toBeGreaterThan(4_000);
  });

  test('that does not come about in time says so', async () => {
    await state('set', 'st/d', '1');
    const { status, stderr } = await runlock(agent, [
      ...['wait', '--timeout', '1s', '--stable', '1h', '--until', 'state:st/d'],
    ]);
    expect(status).toBe(75);
    expect(stderr).toMatch(/timed out after 1s: conditions met, but not for as long as --stable/);
  });
});

describe('--since', () => {
  test('start: waits for a run that ends after the wait began, and takes no earlier one', async () => {
    const group = groupOf(agent, 'since/start');
    await group.exec('n', '--', 'true');
    expect(await look('--until', 'good:n@since/start')).toBe(0);
    const running = wait('-v', '--since', 'start', '--until', 'good:n@since/start');
    await running.says(/good:n@since\/start does not hold/);
    await group.exec('n', '--', 'true');
    expect((await running.ended).status).toBe(0);
  });

  test('a duration and a time', async () => {
    await groupOf(agent, 'since/time').exec('n', '--', 'true');
    const good = (since: string) => look('--until', 'good:n@since/time', '--since', since);
    expect(await good('1h')).toBe(0);
    expect(await good('1ms')).toBe(75);
    expect(await good('2020-01-01T00:00:00Z')).toBe(0);
    expect(await good('2099-01-01T00:00:00Z')).toBe(75);
  });

  test('a good run that grows too old ends a wait by itself', async () => {
    await groupOf(agent, 'since/old').exec('n', '--', 'true');
    const { status } = await wait('--since', '2s', '--while', 'good:n@since/old').ended;
    expect(status).toBe(0);
  });
});

test('the end of a state by its --ttl ends a wait for it, though nothing changes in Consul', async () => {
  await state('set', 'ttl/a', '1', '--ttl', '1s');
  const running = wait('-v', '--while', 'state:ttl/a');
  await running.says(/state:ttl\/a holds/);
  const { status, stderr } = await running.ended;
  expect(status).toBe(0);
  expect(stderr).toContain('ttl/a has ended (it was 1, set by');
});

test('Ctrl-C ends a wait with 130, TERM with 143', async () => {
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const running = wait('-v', '--until', 'state:never');
    await waits(running, 'state:never');
    running.signal(signal);
    expect((await running.ended).status).toBe(status);
  }
});

test('a terminal shows a live line with what is missing, which is gone at the end', async () => {
  await state('set', 'tty/a', '41\x1b[31m');
  const shown = startInTerminal(agent, ['wait', '--until', 'state:tty/a=42', '--timeout', '40s']);
  await shown.shows(/waiting \ds of 40s · state:tty\/a=42: tty\/a is 41\\x1b\[31m, set by/);
  await state('set', 'tty/a', '42');
  expect(await shown.ended).toBe(0);
  expect(shown.screen()).not.toContain('41\x1b[31m');
  expect(shown.screen()).toContain('\r\x1b[Krunlock: conditions met after ');
});

describe('inside a run', () => {
  test('a wait is warned of: it keeps the slot of the run', async () => {
    const group = groupOf(agent, 'in/warned');
    const args = ['wait', '--timeout', '0', '--until', 'idle:in/other'];
    const { status, stderr } = await group.exec('n', '--', RUNLOCK, ...args);
    expect(status).toBe(0);
    expect(stderr).toContain('this wait is inside a run, which keeps its slot of in/warned meanwhile');
  });

  test.each([
    ['--until', 'idle:in/own', 64],
    ['--while', 'active:n@in/own', 64],
    ['--until', 'not:active:n@in/own', 64],
    ['--until', 'active:n@in/own', 0],
    ['--while', 'idle:in/own', 0],
  ])('%s %s exits %i: it may not wait for its own run', async (option, condition, expected) => {
    const group = groupOf(agent, 'in/own');
    const args = ['wait', '--timeout', '20s', option, condition];
    const { folder, lines } = stage();
    const script = '"$@"; echo $? >>"$0"';
    await group.exec('n', '--', 'sh', '-c', script, `${folder}/status`, RUNLOCK, ...args);
    await eventually(() => expect(lines('status')).toEqual([String(expected)]));
  });
});

describe('wrong usage exits 64, and says what is right', () => {
  test.each([
    [[], /--until or --while is required/],
    [['--until', 'state:a'], /--timeout is required, such as/],
    [
      ['--timeout', '1s', '--until', 'stat:a'],
      /--until stat:a: character 1: unknown kind of condition 'stat'; did you mean 'state:'\?/,
    ],
    [['--timeout', '1s', '--while', 'idle:a//b'], /--while idle:a\/\/b: character 8/],
    [['--timeout', '1s', '--until', 'state:a', '--since', '1h'], /--since needs a condition good:NODE/],
    [['--timeout', '1s', '--until', 'good:a', '--since', 'soon'], /--since soon/],
    [['--timeout', '1s', '--until', 'state:a', '--on-timeout', 'go'], /write 'fail' or 'pass'/],
    [
      ['--timeout', '1s', ...Array.from({ length: 65 }, (_, i) => ['--until', `state:s${i}`]).flat()],
      /need 65 reads, but one consistent read takes 64 at most/,
    ],
  ])('%j', async (args, pattern) => {
    const { status, stdout, stderr } = await runlock(agent, ['wait', ...args]);
    expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
    expect(stderr).toMatch(pattern);
  });
});

test('a stored document that this version can not read exits 78 and names its key', async () => {
  await agent.kv.put('runlock/.state/odd/.value', '{"v":9}');
  const { status, stderr } = await runlock(agent, ['wait', '--timeout', '5s', '--until', 'state:odd']);
  expect(status).toBe(78);
  expect(stderr).toContain('runlock/.state/odd/.value: this state was written by a newer runlock');
});
