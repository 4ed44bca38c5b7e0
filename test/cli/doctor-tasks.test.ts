// What `doctor` says of this node's tasks, of their agent's rights, and of tasks that start each other.
import { chmodSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { Check } from '../support/doctor.ts';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ acl: true, name: 'web01' });

function tasks(files: Readonly<Record<string, string>>) {
  const { folder } = stage();
  for (const [name, text] of Object.entries(files))
    writeFileSync(`${folder}/${name}.toml`, text, { mode: 0o600 });
  return folder;
}

const TRUE = 'command = ["/bin/true"]\n';

/** Of tasks and agents only. */
async function doctor(folder: string, { rules, env = {} }: { rules?: readonly string[]; env?: object } = {}) {
  const token = rules && { CONSUL_HTTP_TOKEN: await agent.token(rules.join('\n')) };
  const options = { env: { ...agent.env, ...token, ...env, RUNLOCK_TASKS_DIR: folder } };
  const { stdout, stderr } = await runlock({ env: {} }, ['doctor', '--json'], options);
  expect(stderr).toBe('');
  const { groups, checks } = JSON.parse(stdout) as { groups: string[]; checks: readonly Check[] };
  const of = (...names: string[]) => checks.filter(({ check }) => names.includes(check));
  return { groups, agents: of('agent'), files: of('tasks'), rights: of('rights') };
}

test('each file that is wrong, and each program that could not start, is a problem of its own', async () => {
  const folder = tasks({
    ...{ good: TRUE, bad: 'command = ["/bin/true"]\nslot = 1', user: `${TRUE}user = "nobody-here"` },
    ...{ loop: `${TRUE}group = "a"\non = "idle:a"`, gone: 'command = ["/no/such"]' },
    noop: `${TRUE}noop = ["/etc/passwd"]`,
  });
  const { files } = await doctor(folder);
  expect(files.map(({ level, found }) => [level, found.replace(`${folder}/`, '')])).toEqual([
    ['problem', "bad.toml:2: unknown key 'slot'; did you mean 'slots'?"],
    ['problem', expect.stringMatching(/^loop\.toml: on: 'idle:a' is about runs of a, /)],
    ['problem', 'task gone: /no/such: no such file; correct its path'],
    ['problem', expect.stringMatching(/^task noop: cannot run \/etc\/passwd: this user may not execute it/)],
    ['problem', 'user.toml: user: there is no user nobody-here on this host; make it, or correct the name'],
  ]);
  expect((await doctor(`${folder}/none`)).files).toEqual([
    {
      ...{ check: 'tasks', level: 'warning', found: `${folder}/none: no such folder` },
      fix: 'make it, or name another with --tasks-dir',
    },
  ]);
  chmodSync(folder, 0o777);
  expect((await doctor(folder)).files).toEqual([
    {
      ...{ check: 'tasks', level: 'problem', fix: 'correct it; until then no task of this host runs' },
      found: `${folder}: its group or other users can write it; run chmod go-w ${folder}`,
    },
  ]);
});

test('the rights of the agent are tried, and those of the runs, for the groups of the tasks', async () => {
  const folder = tasks({
    chef: `${TRUE}group = "prod/web"\nallow = ["ops"]\npublish = ["web/ready=1"]`,
    puppet: `${TRUE}group = "prod/db"\non = "state:db/schema"`,
  });
  const printed = await runlock(undefined, ['policy', 'agent', '--node', 'web01', '--tasks-dir', folder]);
  const rules = printed.stdout.trimEnd().split('\n');
  const good = await doctor(folder, { rules: [...rules, 'agent_prefix "" { policy = "read" }'] });
  expect(good.groups).toEqual(['prod/db', 'prod/web']);
  expect(good.files).toEqual([{ check: 'tasks', level: 'ok', found: `2 tasks in ${folder}: valid` }]);
  expect([...good.rights, ...good.agents].filter(({ level }) => level === 'problem')).toEqual([]);
  expect(good.agents.map(({ level, found }) => `${level}: ${found}`)).toEqual([
    'warning: no agent of web01 is running, so nothing hears of requests and changes for its tasks',
  ]);
  for (const missing of rules.filter((rule) => /\.(?:agents|requests|triggers)\//.test(rule))) {
    const { agents } = await doctor(folder, {
      rules: [...rules.filter((rule) => rule !== missing), 'agent_prefix "" { policy = "read" }'],
    });
    expect(agents).toContainEqual({
      ...{ check: 'agent', level: 'problem', fix: `add to the token's policy: ${missing}` },
      found: `${missing.replace(/ \{.*/, '')}: denied, but the agent needs it for its tasks`,
    });
  }
});

test('a token that could ask in the name of others is warned of, unless root trusts everybody', async () => {
  const folder = tasks({ chef: `${TRUE}allow = ["ops"]` });
  const rules = ['key_prefix "runlock/" { policy = "write" }', 'session_prefix "" { policy = "write" }'];
  const about = (env?: object) =>
    doctor(folder, { rules: [...rules, 'agent_prefix "" { policy = "read" }'], ...(env && { env }) }).then(
      ({ agents }) => agents.find(({ found }) => found.includes('others could ask')),
    );
  expect(await about()).toMatchObject({
    level: 'warning',
    found: expect.stringMatching(
      /^the agent serves no requests: this node's token may write runlock\/\.re/,
    ) as string,
  });
  expect((await about({ RUNLOCK_REQUESTS: 'trust-everybody' }))?.level).toBe('note');
});

test('tasks of several agents that start each other are named with the whole chain', async () => {
  const folder = tasks({ chef: `${TRUE}allow = ["ops"]` });
  const document = (node: string, on: string, publish: string) => ({
    ...{ v: 1, node, version: '1', bootId: 'b', host: 'h', pid: 1, startTime: '1' },
    since: '2026-01-01T00:00:00.000Z',
    tasks: [{ name: 't', groups: [node], allow: [], params: [], on: [on], when: [], publish: [publish] }],
  });
  await agent.kv.put('runlock/.agents/n1', JSON.stringify(document('n1', 'state:x=1', 'y')));
  await agent.kv.put('runlock/.agents/n2', JSON.stringify(document('n2', 'state:y', 'x')));
  const { agents } = await doctor(folder);
  expect(agents.map(({ found }) => found)).not.toContainEqual(expect.stringContaining('trigger of'));
  expect(agents).toContainEqual({
    ...{ check: 'agent', level: 'warning' },
    found:
      'tasks start each other: t@n1 changes state:y, which starts t@n2 changes state:x=1, which starts t@n1',
    fix: 'let one of them start by something that none of the others changes; until then only triggers_per_hour stops them',
  });
});

test('what the agent says of itself, and triggers that start nothing, are warned of, once', async () => {
  const folder = tasks({ chef: `${TRUE}allow = ["ops"]` });
  const env = { RUNLOCK_NODE: 'web09' };
  const created = await agent.http('PUT', '/v1/session/create');
  const { ID } = created.json() as { ID: string };
  const since = '2026-01-01T00:00:00.000Z';
  const says = async (noRequests: string) => {
    const document = {
      ...{ v: 1, node: 'web09', version: '1', bootId: 'b', host: 'h', pid: 1, startTime: '1', tasks: [] },
      ...{ since, noRequests },
    };
    await agent.http('PUT', `/v1/kv/runlock/.agents/web09?acquire=${ID}`, document);
    const { agents } = await doctor(folder, { env });
    return agents;
  };
  await agent.kv.put('runlock/.triggers/web09/chef', JSON.stringify({ v: 1, since, marks: {}, failures: 3 }));
  const found = await says('its token is too mighty; give it less');
  expect(found.map(({ level, found }) => `${level}: ${found.slice(0, 57)}`)).toEqual(
    expect.arrayContaining([
      "warning: the agent serves no requests: this node's token may write",
      'warning: the agent serves no requests: its token is too mighty',
      'ok: an agent of web09 is running',
      'warning: trigger of chef is stuck: its last 3 runs failed',
    ]),
  );
  const trust = found.find((each) => each.found.includes("this node's token"));
  const same = await says(`${trust?.found.replace('the agent serves no requests: ', '')}; ${trust?.fix}`);
  expect(same.filter((each) => each.found.includes('serves no requests'))).toEqual([trust]);
});
