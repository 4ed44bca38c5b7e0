// What somebody can do who may write to Consul, but not as the principal whom a task allows: nothing. And what the principal
// can do: what the task's file says, once.
import { appendFileSync, readFileSync, readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { askFor } from '../support/asked-jobs.ts';
import { succeeded } from '../support/consul-api.ts';
import type { Agent } from '../support/consul.ts';
import { eventually } from '../support/processes.ts';
import { agentOn } from '../support/runlock-agent.ts';
import { runlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const consul = useAgent({ acl: true, name: 'node1' });

const printed = async (...words: string[]) =>
  (await runlock(undefined, ['policy', ...words])).stdout.trimEnd().split('\n');

/** The same Consul, with a token of exactly these rules. */
const withRules = async (rules: readonly string[]): Promise<Agent> => ({
  ...consul,
  env: { ...consul.env, CONSUL_HTTP_TOKEN: await consul.token(rules.join('\n')) },
});

const asking = async (principal: string, group: string) =>
  withRules(await printed('viewer', '-g', group, '--principal', principal));

/** Writes its one parameter into a file, as it came. */
const task = (group: string, ran: string, match = '[a-z]+', allow = 'ops') =>
  `command = ["/bin/sh", "-c", 'printf "<%s>\\n" "$@" >>"$0"', "${ran}", "{v}"]
params.v = { match = '${match}', default = "x" }
allow = ["${allow}"]
group = "${group}"`;

/** An agent with exactly the rights that are printed for it, and what its task has run. */
async function prepared(node: string, match?: string, others: readonly string[] = []) {
  const group = `at/${node}`;
  const named = agentOn(consul, node);
  const ran = `${named.folder}/ran`;
  appendFileSync(ran, '');
  named.write('t.toml', task(group, ran, match));
  for (const other of others) named.write(`${other}.toml`, task(group, ran, match, other));
  const rules = await printed('agent', '--node', node, '--tasks-dir', named.tasks);
  // The node's own name in Consul is another one here.
  const through = await withRules([...rules, 'session_prefix "" { policy = "write" }']);
  const startWith = (through: Agent) => agentOn(consul, node, { through, env: folders(named) }).start();
  const start = async () => {
    const running = startWith(through);
    await running.says(/is ready/);
    return running;
  };
  return { node, group, rules, start, startWith, ran: () => readFileSync(ran, 'utf8') };
}

async function serving(node: string, match?: string) {
  const on = await prepared(node, match);
  return { ...on, running: await on.start() };
}

/** Writes a key with the rights of another: the status. */
async function put({ env }: Agent, key: string, value: object): Promise<number> {
  const headers = { 'x-consul-token': env['CONSUL_HTTP_TOKEN'] ?? '' };
  const body = JSON.stringify({ v: 1, ...value });
  return (await fetch(`${consul.url}/v1/kv/runlock/${key}`, { method: 'PUT', headers, body })).status;
}

/** The rights of the agent of another node of these groups. */
const member = async (node: string, group: string) =>
  withRules([
    ...(await printed('agent', '--node', node, '-g', group, '--principal', 'ops')),
    'session_prefix "" { policy = "write" }',
  ]);

const folders = ({ tasks, state, logs }: ReturnType<typeof agentOn>) => ({
  ...{ RUNLOCK_TASKS_DIR: tasks, RUNLOCK_STATE_DIR: state, RUNLOCK_LOG_DIR: logs },
});

test('an agent says which of the rules that are printed for it is missing', async () => {
  const { node, group, rules, startWith } = await prepared('at-rules');
  await askFor(await asking('ops', group), group, { targets: [[node, 0]] });
  for (const missing of rules.filter((rule) => /\.(?:agents|requests)\//.test(rule))) {
    const rest = rules.filter((rule) => rule !== missing);
    const running = startWith(await withRules([...rest, 'session_prefix "" { policy = "write" }']));
    const [, name = ''] = /"(.*)"/.exec(missing) ?? [];
    await running.says(new RegExp(`the token needs the rule: key[^]*${name}`));
    process.kill(running.pid, 'SIGTERM');
    await running.ended;
  }
});

describe('somebody else', () => {
  test('can neither write as the principal, nor be taken for it by what a request says', async () => {
    const { node, group, ran, running } = await serving('at-else');
    const [ops, ci] = [await asking('ops', group), await asking('ci', group)];
    await expect(askFor(ci, group, { targets: [[node, 0]], principal: 'ops' })).rejects.toThrow(
      /needs the rule/,
    );
    // All right under its own name, and the words of the principal in it.
    const forged = await askFor(ci, group, { targets: [[node, 0]], principal: 'ci', by: 'ops', id: 'same' });
    // The principal's pointer to it finds no request of the principal's.
    const copy = `runlock/.requests/ops/inbox/${node}/same`;
    await consul.kv.put(copy, (await consul.kv.get(forged.pointer()))?.Value ?? '');
    await running.says(/job ops\/same: removed from this node's inbox: the request is gone/);
    const job = await askFor(ops, group, { targets: [[node, 0]] });
    await job.becomes('good');
    expect(await forged.document()).toBeUndefined();
    expect(ran()).toBe('<x>\n');
  });
});

describe('a principal', () => {
  test('gets one run for a request, also if its pointer is put back, or a snapshot of all of it', async () => {
    const { node, group, ran, start } = await prepared('at-again');
    const ops = await asking('ops', group);
    const job = await askFor(ops, group, { targets: [[node, 0]] });
    const asked = [
      ...(await consul.kv.tree('runlock/.requests/')),
      ...(await consul.kv.tree(`runlock/${group}/`)),
    ];
    const before = await start();
    await job.becomes('good');
    const gone = () => eventually(async () => expect(await consul.kv.get(job.pointer())).toBeUndefined());
    await gone();
    await consul.kv.put(job.pointer(), asked.find(({ Key }) => Key === job.pointer())?.Value ?? '');
    await gone();
    process.kill(before.pid, 'SIGTERM');
    await before.ended;
    await consul.kv.deleteTree(`runlock/${group}/`);
    for (const { Key, Value } of asked) await consul.kv.put(Key, Value);
    const after = await start();
    await gone();
    expect((await job.document())?.state).not.toBe('accepted');
    expect(after.stderr()).not.toContain('started a run');
    expect(ran()).toBe('<x>\n');
  });

  test('gives one word of the command, whatever is in it', async () => {
    const { node, group, ran } = await serving('at-words', '.*');
    const ops = await asking('ops', group);
    const words = ['a b', `"'\\`, '$(id)`id`;id|id&../../x', '', 'ü*?~{v}%s'];
    for (const v of words)
      await (await askFor(ops, group, { targets: [[node, 0]], params: { v } })).becomes('good');
    expect(ran()).toBe(words.map((word) => `<${word}>\n`).join(''));
    await Promise.all(
      ['-rf', 'a\nb', 'x'.repeat(257)].map(async (v) => {
        const job = await askFor(ops, group, { targets: [[node, 0]], params: { v } });
        await job.becomes('refused');
      }),
    );
    expect(ran().split('\n')).toHaveLength(words.length + 1);
  });

  test('can stop no agent by a request that is huge, broken, or one of very many', async () => {
    const { node, group, ran, running } = await serving('at-flood');
    const ops = await asking('ops', group);
    const inbox = `runlock/.requests/ops/inbox/${node}`;
    const pointer = JSON.stringify({ v: 1, nonce: 'n', chunk: 0 });
    await consul.kv.put('runlock/.requests/ops/spec/huge', 'x'.repeat(512_000));
    await consul.kv.put('runlock/.requests/ops/spec/deep', '['.repeat(50_000));
    for (const id of ['huge', 'deep', 'none']) await consul.kv.put(`${inbox}/${id}`, pointer);
    for (const [id, value] of [
      ['big', 'x'.repeat(500_000)],
      ['bad', '{'],
    ] as const)
      await consul.kv.put(`${inbox}/${id}`, value);
    const set = (at: number) => ({ Verb: 'set', Key: `${inbox}/x${at}`, Value: btoa(pointer) });
    for (let from = 0; from < 384; from += 64) {
      const writes = Array.from({ length: 64 }, (_, at) => ({ KV: set(from + at) }));
      succeeded(await consul.http('PUT', '/v1/txn', writes), 'writing');
    }
    let most = 0;
    await eventually(async () => {
      most = Math.max(most, readdirSync(`/proc/${running.pid}/fd`).length);
      expect(await consul.kv.tree(`${inbox}/x`)).toEqual([]);
    }, 20_000);
    await (await askFor(ops, group, { targets: [[node, 0]] })).becomes('good');
    // Consul allows 200 connections from a host, and others of this host ask it, too.
    expect(most).toBeLessThan(100);
    expect(ran()).toBe('<x>\n');
    expect(running.stderr()).toMatch(/ops\/huge/);
  });

  test('that floods a node’s inbox holds up no other, and takes neither memory nor connections', async () => {
    const POINTERS = Number(process.env['RUNLOCK_TEST_POINTERS'] ?? 5_000);
    const { node, group, start } = await prepared('at-many', undefined, ['ci']);
    const inbox = `runlock/.requests/ops/inbox/${node}`;
    // Their names say nothing of their order.
    const names = Array.from({ length: POINTERS }, (_, at) => `x${(at * 7_919) % POINTERS}`);
    for (let from = 0; from < POINTERS; from += 64) {
      const writes = names.slice(from, from + 64).map((name) => ({
        KV: { Verb: 'set', Key: `${inbox}/${name}`, Value: btoa('{"v":1,"nonce":"n","chunk":0}') },
      }));
      succeeded(await consul.http('PUT', '/v1/txn', writes), 'writing');
    }
    const running = await start();
    let most = 0;
    const left = async () => {
      most = Math.max(most, readdirSync(`/proc/${running.pid}/fd`).length);
      const found = (await consul.http('GET', `/v1/kv/${inbox}/x?keys`)).json() as string[];
      return new Set(found.map((key) => key.slice(inbox.length + 1)));
    };
    await eventually(async () => expect((await left()).size).toBeLessThan(POINTERS), 60_000);
    const ci = await asking('ci', group);
    await (await askFor(ci, group, { task: 'ci', targets: [[node, 0]], principal: 'ci' })).becomes('good');
    const now = await left();
    expect(now.size).toBeGreaterThan(POINTERS / 2);
    // Oldest first: but for those that are attended to now, the ones that are gone are the first that were written.
    const first = names.findIndex((name) => now.has(name));
    expect(POINTERS - first - now.size).toBeLessThanOrEqual(120);
    await eventually(async () => expect((await left()).size).toBeLessThan(now.size - 200), 60_000);
    expect(most).toBeLessThan(60);
    const [, peakKb] = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${running.pid}/status`, 'utf8')) ?? [];
    expect(Number(peakKb) / 1_024).toBeLessThan(160 + POINTERS / 500);
  }, 120_000);

  test('keeps nobody waiting by requests that can not be read, which stay where they are', async () => {
    const { node, group, running } = await serving('at-junk');
    const ops = await asking('ops', group);
    const inbox = `runlock/.requests/ops/inbox/${node}`;
    const pairs = Array.from({ length: 130 }, (_, at) => [
      { Verb: 'set', Key: `runlock/.requests/ops/spec/junk${at}`, Value: btoa('junk') },
      { Verb: 'set', Key: `${inbox}/junk${at}`, Value: btoa('{"v":1,"nonce":"n","chunk":0}') },
    ]).flat();
    for (let from = 0; from < pairs.length; from += 64) {
      const writes = pairs.slice(from, from + 64).map((set) => ({ KV: set }));
      succeeded(await consul.http('PUT', '/v1/txn', writes), 'writing');
    }
    await (await askFor(ops, group, { targets: [[node, 0]] })).becomes('good');
    const said = running.stderr().match(/job ops\/junk\d+: can't be served: .*/g) ?? [];
    expect(said).toHaveLength(10);
    expect(said[0]).toContain("remove it with 'consul kv delete runlock/.requests/ops/spec/junk");
    expect(said[9]).toContain('there may be more');
    expect(await consul.kv.tree(`${inbox}/junk`)).toHaveLength(130);
  });
});

describe('a node that lies about its name', () => {
  test('gets neither another’s place nor its requests, and asks for nothing', async () => {
    const { node, group, start, startWith } = await prepared('at-true');
    const liar = await member('at-liar', group);
    const other = startWith(liar);
    await other.says(/the token needs the rule: key_prefix "runlock\/\.agents\/at-true"/);
    process.kill(other.pid, 'SIGTERM');
    await other.ended;
    await start();
    // With all rights, as on a host that has the node's own token: one of the two.
    const second = startWith(consul);
    expect(await second.ended).toMatchObject({ status: 75 });
    expect(second.stderr()).toMatch(/an agent for node at-true is already running on .*pid/);
    const keys = [
      `.agents/${node}`,
      ...[`inbox/${node}/x`, 'spec/x', 'targets/x/0'].map((own) => `.requests/ops/${own}`),
    ];
    for (const key of keys) expect(await put(liar, key, {})).toBe(403);
  });

  test('can write in its groups’ jobs what any member may, and starts nothing by it', async () => {
    const { node, group, start, ran } = await prepared('at-member');
    const [liar, stranger] = [await member('at-liar', group), await member('at-liar', 'at/other')];
    const ops = await asking('ops', group);
    const ask = () => askFor(ops, group, { targets: [[node, 0]], maxFailures: 1 });
    const [good, running, honest] = [await ask(), await ask(), await ask()];
    const documentOf = ({ ref }: typeof good) => `${group}/.jobs/ops/${ref.id}/nodes/${node}`;
    const at = new Date().toISOString();
    const forged = { rev: 0, state: 'good', endedAt: at };
    expect(await put(stranger, documentOf(good), forged)).toBe(403);
    // The price of having no controller: its job believes it.
    expect(await put(liar, documentOf(good), forged)).toBe(200);
    const run = { rev: 0, state: 'running', run: 'r', bootId: 'b', startedAt: at };
    expect(await put(liar, documentOf(running), run)).toBe(200);
    await start();
    await honest.becomes('good');
    await running.becomes('lost');
    await eventually(async () => expect(await consul.kv.get(good.pointer())).toBeUndefined());
    // What has run does not run again: the node has no request for it any more, and nobody else can write one.
    expect(await put(liar, documentOf(honest), { rev: 9, state: 'accepted', acceptedAt: at })).toBe(200);
    await (await ask()).becomes('good');
    expect(ran()).toBe('<x>\n<x>\n');
  });
});
