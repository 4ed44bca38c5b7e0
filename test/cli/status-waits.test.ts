// What `status` says of runs that wait without a slot: for what, what is so instead, and circles of them.
import { describe, expect, test } from 'vitest';
import { widthOf } from '../../src/text/style.ts';
import { createToken } from '../support/consul-api.ts';
import { groupOf } from '../support/group.ts';
import { outsideKey, outsideRecord } from '../support/outside.ts';
import type { Waits } from '../support/outside.ts';
import { eventually } from '../support/processes.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import type { StartOptions } from '../support/program.ts';
import { startInTerminal } from '../support/terminal.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ acl: true });

const ago = (ms: number) => new Date(Date.now() - ms).toISOString();
const status = async (...args: readonly string[]) => {
  const { status: code, stdout, stderr } = await runlock(agent, ['status', ...args]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return stdout;
};
interface Report {
  readonly circles?: readonly { readonly why: string; readonly runs: readonly { readonly node: string }[] }[];
  readonly states: Readonly<Record<string, number>>;
  readonly groups: readonly {
    readonly group: string;
    readonly state: string;
    readonly why: string;
    readonly outside?: readonly {
      readonly node: string;
      readonly when: readonly { readonly condition: string; readonly holds?: boolean; readonly is: string }[];
      readonly why: string;
    }[];
  }[];
}
const report = async (...args: readonly string[]) => JSON.parse(await status('--json', ...args)) as Report;
const check = async (args: readonly string[], options?: StartOptions) => {
  const { status: code, stdout } = await runlock(agent, ['status', '--check', ...args], options);
  return { code, line: stdout };
};
const setState = async (path: string, value: string, ...more: readonly string[]) =>
  expect((await runlock(agent, ['state', 'set', path, value, ...more])).status).toBe(0);

/** A record by hand, held by a session. */
async function waits(fields: Waits, prefix?: string): Promise<() => Promise<void>> {
  const made = await agent.http('PUT', '/v1/session/create', { Behavior: 'delete', LockDelay: '0s' });
  const { ID } = made.json() as { ID: string };
  for (const group of [fields.group, ...(fields.also ?? [])])
    expect(
      await agent.kv.put(outsideKey({ ...fields, group }, prefix), outsideRecord(fields), { acquire: ID }),
    ).toBe(true);
  return async () => {
    await agent.http('PUT', `/v1/session/destroy/${ID}`);
  };
}

const waitingRun = async (group: string, ...args: readonly string[]) => {
  const run = groupOf(agent, group).start('web01', ...args, '--', 'true');
  await eventually(async () => {
    const pair = await agent.kv.get(`runlock/${group}/.outside/web01`);
    expect(pair?.Session).toBeTruthy();
  });
  return run;
};

describe('a run with --when', () => {
  test('is shown with what is so instead, by whom and since when, until it goes on', async () => {
    await setState('real/schema', '41');
    const run = await waitingRun('real/web', '--when', 'state:real/schema=42', '--when', 'idle:real/db');
    const is = /real\/schema is 41, set by \S+ \d+s ago/;
    const [group] = (await report('real/web')).groups;
    expect(group).toMatchObject({ group: 'real/web', state: 'waiting' });
    expect(group?.why).toMatch(is);
    expect(group?.outside).toMatchObject([
      {
        node: 'web01',
        when: [
          { condition: 'state:real/schema=42', holds: false },
          { condition: 'idle:real/db', holds: true, is: 'real/db is idle' },
        ],
      },
    ]);
    expect(await status('real/web')).toMatch(
      /^ {2}web01 has been waiting without a slot for \d+s \(true\):\n {4}state:real\/schema=42: real\/schema is 41, set by/m,
    );
    // A second group, and it is one line.
    await groupOf(agent, 'real/other').exec('web09', '--', 'true');
    expect(await status()).toMatch(
      /^real\/web \(waiting\): web01 is waiting for state:real\/schema=42: real/m,
    );
    await setState('real/schema', '42');
    expect((await run.ended).status).toBe(0);
    expect((await report('real/web')).groups).toMatchObject([{ state: 'idle' }]);
    expect(await status('real/web')).not.toContain('waiting without');
  });

  test('that is killed is shown until its session is gone, and no longer', async () => {
    const gone = await waits({ node: 'web01', group: 'gone/web', when: ['state:never'] });
    expect((await report('gone/web')).groups).toMatchObject([{ state: 'waiting' }]);
    await gone();
    // Left by a hand, or by an import: it has no session.
    await agent.kv.put(
      'runlock/gone/web/.outside/web01',
      outsideRecord({ node: 'web01', group: 'gone/web' }),
    );
    expect((await report('gone/web')).groups[0]).toMatchObject({ state: 'idle' });
    expect((await report('gone/web')).groups[0]).not.toHaveProperty('outside');
  });
});

test('each kind of condition is said as it is', async () => {
  const group = 'kinds/web';
  await groupOf(agent, 'kinds/db').exec('db01', '--', 'sh', '-c', 'exit 3');
  await runlock(agent, ['freeze', 'kinds/db', '--reason', 'new disks', '--for', '1h']);
  const when = [
    ...['not:frozen:kinds/db', 'not:blocked:kinds/db', 'active:db01@kinds/db', 'good:db01@kinds/db'],
    ...['good:*@kinds/db', 'healthy:kinds:2', 'agent:db01', 'state:kinds/none', 'not:state:kinds/some'],
  ];
  await setState('kinds/some', 'a b');
  const end = await waits({ node: 'web01', group, when });
  const [found] = (await report(group)).groups;
  const said = (found?.outside?.[0]?.when ?? []).map(
    ({ condition, holds, is }) => `${condition} ${holds}: ${is}`,
  );
  const patterns = [
    /^not:frozen:kinds\/db false: kinds\/db was frozen \d+s ago by \S+: new disks$/,
    /^not:blocked:kinds\/db false: kinds\/db is blocked: slot 0 is held by db01 \(failed \d+s ago\)$/,
    /^active:db01@kinds\/db false: db01 is not running in kinds\/db$/,
    /^good:db01@kinds\/db false: the last run of db01 in kinds\/db failed \d+s ago$/,
    /^good:\*@kinds\/db false: the last run of db01 in kinds\/db failed \d+s ago$/,
    /^healthy:kinds:2 false: 0 of 0 instances of kinds are healthy$/,
    /^agent:db01 false: no runlock agent is running on db01$/,
    /^state:kinds\/none false: kinds\/none is not set$/,
    /^not:state:kinds\/some false: kinds\/some is 'a b', set by \S+ \d+s ago$/,
  ];
  expect(said).toHaveLength(patterns.length);
  for (const [i, pattern] of patterns.entries()) expect(said[i]).toMatch(pattern);
  // The same from all groups at once.
  const all = (await report()).groups.find((each) => each.group === group);
  expect(all?.outside?.[0]?.when.map(({ holds }) => holds)).toEqual(patterns.map(() => false));
  const text = await status(group);
  expect(text.match(/^ {4}\S/gm)).toHaveLength(6);
  expect(text).toContain('\n    and 4 more\n');
  await end();
});

describe('a closed gate', () => {
  test('is judged anew: what is offline, and that the node’s own would be one too many', async () => {
    const register = (id: string, health: string) =>
      agent.http('PUT', '/v1/agent/service/register', {
        ...{ ID: id, Name: 'gated', Check: { TTL: '1h', Status: health } },
      });
    await register('gated-1', 'critical');
    const gate = { services: ['gated'], maxOffline: 0 };
    const end = await waits({ node: 'elsewhere', group: 'gate/web', gate });
    expect((await report('gate/web')).groups[0]?.why).toMatch(
      /^elsewhere is about to ask for a slot$|^elsewhere is waiting for gate of gated: /,
    );
    await end();
    const local = ((await agent.http('GET', '/v1/agent/self')).json() as { Config: { NodeName: string } })
      .Config;
    await register('gated-2', 'passing');
    const again = await waits({
      node: 'other',
      group: 'gate/db',
      gate: { services: ['nowhere'], maxOffline: 1 },
    });
    expect(local.NodeName).not.toBe('');
    expect((await report('gate/db')).groups[0]?.why).toBe(
      'other is waiting for gate of nowhere: no instances; is the name correct?',
    );
    await again();
  });
});

describe('a token that may not read what a condition is about', () => {
  const withRules = async (rules: string): Promise<StartOptions> => ({
    env: { ...agent.env, CONSUL_HTTP_TOKEN: await createToken(agent.http, rules) },
  });

  test('is told so, by the rule, and takes nothing for absent', async () => {
    const when = [
      'not:state:dark/secret',
      'state:dark/open',
      'not:state:dark/none',
      'idle:dark/db',
      'healthy:dark',
    ];
    const end = await waits({ node: 'web01', group: 'dark/web', when });
    await setState('dark/secret', '1');
    const options = await withRules(
      'key_prefix "runlock/dark/web/" { policy = "read" } key "runlock/.freeze" { policy = "read" } ' +
        'key "runlock/dark/.freeze" { policy = "read" } key "runlock/.state/dark/none/.value" { policy = "read" }',
    );
    for (const args of [['dark/web'], []]) {
      const { stdout } = await runlock(agent, ['status', '--json', ...args], options);
      const group = (JSON.parse(stdout) as Report).groups.find((each) => each.group === 'dark/web');
      const said = group?.outside?.[0]?.when ?? [];
      expect(said.map(({ holds }) => holds)).toEqual([undefined, undefined, true, undefined, undefined]);
      const rules = said.map(({ is }) => is.replace(/^this token may not read it; it needs the rule: /, ''));
      expect(rules).toEqual([
        'key_prefix "runlock/.state/dark/" { policy = "read" }',
        'key_prefix "runlock/.state/dark/" { policy = "read" }',
        'dark/none is not set',
        'key_prefix "runlock/dark/db/.slot/" { policy = "read" }',
        'service "dark" { policy = "read" }',
      ]);
    }
    // It was OK, although runs whose conditions can't be read may wait for each other.
    const { code, line } = await check(['-g', 'dark/web'], options);
    expect({ code, line }).toMatchObject({ code: 3 });
    expect(line).toContain(
      'RUNLOCK UNKNOWN - this token may not read not:state:dark/secret, for which web01 is waiting in dark/web and 1 more; ' +
        'it needs the rule: key_prefix "runlock/.state/dark/" { policy = "read" }',
    );
    await end();
  });

  test('and may be in a circle makes --check UNKNOWN, unless the token may see all groups', async () => {
    const { stdout } = await runlock(undefined, ['policy', 'viewer', '-g', 'view']);
    const all = 'key_prefix "runlock/" { policy = "read" }';
    const ends = [
      await waits({ node: 'a01', group: 'view/a', when: ['state:circle/b'], publish: ['circle/a'] }),
      await waits({ node: 'b01', group: 'view/b', when: ['state:circle/a'], publish: ['circle/b'] }),
    ];
    expect(await check(['-g', 'view'], await withRules(`${stdout}\n${all}`))).toMatchObject({ code: 2 });
    const some = await check(['-g', 'view'], await withRules(stdout));
    expect(some).toMatchObject({
      code: 3,
      line: expect.stringContaining(`it needs the rule: ${all}`) as string,
    });
    const states = 'key_prefix "runlock/.state/" { policy = "read" }';
    expect(stdout).toContain(states);
    const { code, line } = await check(['-g', 'view'], await withRules(stdout.replace(states, '')));
    expect({ code, line }).toMatchObject({ code: 3 });
    expect(line).toContain('it needs the rule: key_prefix "runlock/.state/circle/" { policy = "read" }');
    for (const end of ends) await end();
  });
});

describe('runs that wait for each other', () => {
  test('are named in order, in text and JSON, and --check is CRITICAL until one of them goes on', async () => {
    const first = await waitingRun('ring/web', '--when', 'good:web01@ring/db');
    const second = await waitingRun('ring/db', '--when', 'good:web01@ring/web');
    const why =
      'web01 (ring/db) is waiting for good:web01@ring/web (only a run of web01 can make this true); web01 (ring/web) is waiting for ' +
      'good:web01@ring/db (only a run of web01 can make this true); none of them can start';
    const found = await report('ring');
    expect(found.circles).toMatchObject([{ why }]);
    expect(found.states).toMatchObject({ waiting: 2 });
    const text = await status('ring');
    expect(text).toContain(
      `\ncircle of waits: ${why}\n  next: stop one of these runs and start it with other`,
    );
    expect(await status('--blocked')).toContain(`\ncircle of waits: ${why}\n`);
    for (const args of [['-g', 'ring'], ['-g', 'ring/web'], []]) {
      const { code, line } = await check(args);
      expect({ code, line }).toMatchObject({ code: 2 });
      expect(line).toContain(`RUNLOCK CRITICAL - circle of waits: ${why}`);
      expect(line).toMatch(/ circles=1;;;0$/m);
    }
    await groupOf(agent, 'ring/db').exec('web01', '--', 'true');
    expect((await first.ended).status).toBe(0);
    expect((await second.ended).status).toBe(0);
    expect(await check(['-g', 'ring'])).toMatchObject({ code: 0 });
    expect((await report('ring')).circles).toBeUndefined();
  });

  test('across groups by what they publish; a third that can start is a way out', async () => {
    const ends = [
      await waits({ node: 'a01', group: 'pub/a', when: ['state:pub/b=1'], publish: ['pub/a'] }),
      await waits({ node: 'b01', group: 'pub/b', when: ['state:pub/a'], publish: ['pub/b'] }),
    ];
    expect((await report('pub')).circles?.map(({ runs }) => runs.map(({ node }) => node))).toEqual([
      ['a01', 'b01'],
    ]);
    expect(await check(['-g', 'pub'])).toMatchObject({ code: 2 });
    ends.push(await waits({ node: 'c01', group: 'pub/c', publish: ['pub/a'] }));
    expect(await check(['-g', 'pub'])).toMatchObject({ code: 0 });
    for (const end of ends) await end();
  });
});

describe('runs that wait for what a third run publishes', () => {
  const circleIn = async (name: string) => {
    const runs = [
      groupOf(agent, `${name}/a`).start('na', ...publishing(name, 'x', 'y')),
      groupOf(agent, `${name}/b`).start('nb', ...publishing(name, 'y', 'x')),
    ];
    await eventually(async () => expect(await check(['-g', name])).toMatchObject({ code: 2 }), 20_000);
    return async () => {
      for (const { ended } of runs) expect((await ended).status).toBe(0);
    };
  };
  const publishing = (name: string, waited: string, published: string) => [
    ...['--when', `state:${name}/${waited}`, '--publish', `${name}/${published}=1`, '--', 'true'],
  ];

  test('are in no circle while it is running, also after it took its lock back', async () => {
    const goOn = await circleIn('under');
    const group = groupOf(agent, 'under/c');
    const third = await group.hold('nc', '--publish', 'under/x=1', '--during', 'under/z=1');
    const publish = ['under/x', 'under/z'];
    expect(await group.claim()).toMatchObject({ publish });
    expect(await check(['-g', 'under'])).toMatchObject({ code: 0 });
    await agent.http('PUT', `/v1/session/destroy/${await group.lockedBy()}`);
    await eventually(async () => {
      expect(await group.claim()).toMatchObject({ returns: 1, publish });
      expect(await group.lockedBy()).toBeTruthy();
    }, 30_000);
    expect(await check(['-g', 'under'])).toMatchObject({ code: 0 });
    third.tell();
    expect((await third.ended).status).toBe(0);
    await goOn();
  });

  test('are in no circle while it is in the queue behind one that publishes nothing', async () => {
    const goOn = await circleIn('behind');
    const group = groupOf(agent, 'behind/c');
    const first = await group.hold('n0');
    expect(await check(['-g', 'behind'])).toMatchObject({ code: 2 });
    expect(await group.claim()).not.toHaveProperty('publish');
    const third = group.start('nc', '--publish', 'behind/x=1', '--', 'true');
    await group.waiting();
    const [ticket] = await agent.kv.tree(group.key('.queue/'));
    expect(JSON.parse(ticket?.Value ?? '')).toMatchObject({ node: 'nc', publish: ['behind/x'] });
    expect(await check(['-g', 'behind'])).toMatchObject({ code: 0 });
    await first.end();
    expect((await third.ended).status).toBe(0);
    await goOn();
  });
});

describe.each([60, 80, 120])('in a terminal of %i columns', (columns) => {
  const width = { shell: (command: string) => `stty cols ${columns} rows 60; ${command}` };
  const prefix = `wide${columns}`;
  const LONG = 'web-frontend-eu-central-1a-0123456789.prod.internal.example.com';
  const fill = async () => {
    const by = 'prod/eu-central-1/frontend';
    const when = [
      'state:db/schema=a-very-long-value-that-nobody-should-cut',
      'idle:prod/eu-central-1/db',
      'healthy:web:3',
    ];
    return [
      await waits({ node: LONG, group: by, when, since: ago(7_200_000), publish: ['x/y'] }, prefix),
      await waits(
        {
          node: 'db01',
          group: 'prod/db',
          when: ['state:x/y=1', `good:${LONG}@${by}`],
          publish: ['db/schema'],
        },
        prefix,
      ),
    ];
  };
  const plain = (text: string) =>
    // eslint-disable-next-line no-control-regex -- colours, and what redraws the screen
    text.replaceAll(/\x1b\[[\d;?]*[A-Za-z]/g, '').replaceAll(/\r+\n/g, '\n');
  const tooWide = (text: string) =>
    // A name, a path or a condition that has no room on a line of its own is never cut.
    text.split('\n').filter((line) => widthOf(line) > columns && /\S\s+\S/.test(line.trim()));

  test('it fits, and cuts no name, condition or value: once, blocked, and as it is watched', async () => {
    const ends = await fill();
    const named = ['prod/db', 'prod/eu-central-1/frontend'];
    for (const args of [[], ['prod'], ['--blocked'], named]) {
      const run = startInTerminal(agent, ['status', '--prefix', prefix, ...args], width);
      expect(await run.ended).toBe(0);
      const text = plain(run.screen());
      expect(tooWide(text)).toEqual([]);
      expect(text).toContain('circle of waits: ');
      expect(text).toContain(LONG);
      expect(text).not.toContain('…');
    }
    const run = startInTerminal(agent, ['status', '--watch', '--prefix', prefix, ...named], width);
    await run.shows(/circle of waits/);
    await eventually(() => expect(plain(run.screen())).toMatch(/0 of 0 instances\s+of web/), 20_000);
    run.type('q');
    expect(await run.ended).toBe(0);
    const frames = run.screen().split('\x1b[H').slice(1).map(plain);
    expect(frames.flatMap(tooWide)).toEqual([]);
    for (const end of ends) await end();
  });
});

describe('watched', () => {
  test('it is drawn anew when a state changes, of named groups and of all', async () => {
    for (const args of [['-g', 'seen/web'], []]) {
      await setState('seen/schema', '1');
      const end = await waits({
        node: 'web01',
        group: 'seen/web',
        when: ['state:seen/schema=3', 'healthy:seen'],
      });
      const watch = startRunlock(agent, ['status', '--watch', '--json', ...args]);
      const shows = (pattern: RegExp) =>
        eventually(() => expect(watch.stdout().trim().split('\n').at(-1)).toMatch(pattern), 20_000);
      await shows(/seen\/schema is 1, set by.*0 of 0 instances of seen are healthy/);
      await setState('seen/schema', '2');
      await shows(/seen\/schema is 2, set by/);
      await agent.http('PUT', '/v1/agent/service/register', { ID: 'seen-1', Name: 'seen' });
      await shows(/1 of 1 instances of seen are healthy/);
      await agent.http('PUT', '/v1/agent/service/deregister/seen-1');
      await end();
      await shows(/^(?!.*seen\/schema)/);
      watch.signal('SIGINT');
      expect((await watch.ended).status).toBe(0);
    }
  });
});

test('what a record says cannot speak to the terminal', async () => {
  const evil = '\x1b[31m\u202e';
  const end = await waits({
    node: 'web01',
    group: 'evil/web',
    when: [`state:${evil}`, `${evil}:x`],
    run: evil,
  });
  const { stdout } = await runlock(agent, ['status', 'evil/web'], { env: { FORCE_COLOR: '0' } });
  expect(stdout).toContain('\\x1b[31m\\u202e:x: this version of runlock does not know such a condition');
  expect(stdout).not.toContain('\x1b');
  expect(stdout).not.toContain('\u202e');
  await end();
});
