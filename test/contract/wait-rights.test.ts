// A token that loses a right, or is deleted, while `runlock wait` waits: 77, whatever it waits for.
import { describe, expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const guarded = useAgent({ acl: true });

const ALL = [
  'key_prefix "runlock/" { policy = "read" }',
  'service_prefix "" { policy = "read" }',
  'node_prefix "" { policy = "read" }',
].join('\n');

const KINDS = [
  ...['state:del/a', 'not:state:del/set', 'state:del/set!=1', 'not:idle:del', 'active:n@del'],
  ...['good:n@del', 'good:*@del', 'healthy:del', 'frozen:del', 'agent:n'],
];

const as = (token: string) => ({ env: { ...guarded.env, CONSUL_HTTP_TOKEN: token } });

describe('a wait whose token is deleted meanwhile', () => {
  test('ends with 77 for each kind of condition, though it would be met now', async () => {
    await runlock(guarded, ['state', 'set', 'del/set', '1']);
    const token = await guarded.token(ALL);
    const waits = KINDS.map((until) =>
      startRunlock(as(token), ['wait', '-v', '--timeout', '55s', '--until', until]),
    );
    for (const waiting of waits) await waiting.says(/ does not hold: /);
    const self = await guarded.http('GET', '/v1/acl/token/self', undefined, { token });
    const { AccessorID } = self.json() as { AccessorID: string };
    await guarded.http('DELETE', `/v1/acl/token/${AccessorID}`);
    // Each is met now. Its query, which is under way, may still tell; the look after it may not.
    const group = groupOf(guarded, 'del');
    const holder = await group.hold('n');
    await runlock(guarded, ['state', 'set', 'del/a', '1']);
    await runlock(guarded, ['state', 'delete', 'del/set']);
    await runlock(guarded, ['freeze', 'del', '--reason', 'r']);
    await guarded.http('PUT', '/v1/agent/service/register', { Name: 'del' });
    const created = await guarded.http('PUT', '/v1/session/create', { TTL: '60s', Behavior: 'delete' });
    await guarded.kv.put('runlock/.agents/n', '{}', { acquire: (created.json() as { ID: string }).ID });
    await holder.end();
    for (const [i, waiting] of waits.entries()) {
      const { status, stdout } = await waiting.ended;
      expect({ kind: KINDS[i], status, stdout }).toEqual({ kind: KINDS[i], status: 77, stdout: '' });
    }
  }, 60_000);
});

describe('--any', () => {
  test('needs the right to read each of its conditions, also beside one that holds: 77', async () => {
    await runlock(guarded, ['state', 'set', 'any/a', '1']);
    const token = await guarded.token('key_prefix "runlock/.state/any/" { policy = "read" }');
    const both = ['--any', '--timeout', '0', '--until', 'state:any/a=1', '--until', 'idle:any/g'];
    const { status, stdout, stderr } = await runlock(as(token), ['wait', ...both]);
    expect({ status, stdout }).toEqual({ status: 77, stdout: '' });
    expect(stderr).toContain('key_prefix "runlock/any/g/.slot/" { policy = "read" }');
  });
});

test('a token that may read single keys, and list nothing, waits for what a folder of them holds', async () => {
  const paths = Array.from({ length: 12 }, (_, i) => `single/s${i}`);
  for (const path of paths) await runlock(guarded, ['state', 'set', path, '0']);
  const rules = paths.map((path) => `key "runlock/.state/${path}/.value" { policy = "read" }`);
  const token = await guarded.token(rules.join('\n'));
  const until = paths.flatMap((path) => ['--until', `state:${path}=1`]);
  const waiting = startRunlock(as(token), ['wait', '-v', '--timeout', '40s', ...until]);
  await waiting.says(/single\/s11=1 does not hold/);
  for (const path of paths) await runlock(guarded, ['state', 'set', path, '1']);
  expect((await waiting.ended).status).toBe(0);
});
