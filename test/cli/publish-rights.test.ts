// What a run that publishes must be allowed, tried before it changes its node.
import { describe, expect, test } from 'vitest';
import { runlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ acl: true, name: 'web01' });

const GROUP = [
  'session "web01" { policy = "write" }',
  'key_prefix "runlock/prod/web/" { policy = "write" }',
  'key "runlock/prod/.freeze" { policy = "write" }',
  'key "runlock/.freeze" { policy = "write" }',
];
const STATES = 'key_prefix "runlock/.state/db/" { policy = "write" }';

const withRules = async (...rules: string[]) => ({
  env: { ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(rules.join('\n')) },
});

describe.each(['--publish', '--during'])('a run with %s', (flag) => {
  const words = ['exec', '-g', 'prod/web', flag, 'db/schema=42', '--', 'echo', 'ran'];

  test('without the right starts nothing: 77, names the rule, and takes no slot', async () => {
    const { status, stdout, stderr } = await runlock(await withRules(...GROUP), words);
    expect({ status, stdout }).toEqual({ status: 77, stdout: '' });
    expect(stderr).toContain(STATES);
    expect(stderr).toContain('nothing was started');
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(await agent.kv.keys('runlock/prod/web/')).toEqual([]);
  });

  test('with exactly this right runs, also where the state is set already', async () => {
    const node = await withRules(...GROUP, STATES);
    for (let i = 0; i < 2; i += 1)
      expect(await runlock(node, words)).toMatchObject({ status: 0, stdout: 'ran\n', stderr: '' });
    for (const key of await agent.kv.keys('runlock/prod/web/')) await agent.kv.delete(key);
  });
});

test('without a token, a refusal says so, and names what helps', async () => {
  const env = { ...agent.env, CONSUL_HTTP_TOKEN: '' };
  const helps =
    /, and no token is set .*'runlock doctor' tries every right, 'runlock policy' prints the rules\)\n$/;
  const run = await runlock({ env }, ['exec', '--publish', 'db/schema=42', '--', 'true']);
  expect(run.status).toBe(77);
  expect(run.stderr).toMatch(helps);
  const wait = await runlock({ env }, ['wait', '--until', 'healthy:web', '--timeout', '0']);
  expect(wait).toMatchObject({ status: 77 });
  expect(wait.stderr).toMatch(helps);
});

test('who may read a state, and not the group of its run, is told so', async () => {
  const node = await withRules(...GROUP, STATES);
  expect(
    (await runlock(node, ['exec', '-g', 'prod/web', '--during', 'db/mode=1', '--', 'false'])).status,
  ).toBe(1);
  const reader = await withRules('key_prefix "runlock/.state/db/" { policy = "read" }');
  for (const words of [
    ['state', 'get', 'db/mode'],
    ['wait', '--until', 'state:db/mode', '--timeout', '0'],
  ]) {
    const { status, stderr } = await runlock(reader, words);
    expect(status).toBe(77);
    expect(stderr).toContain('key_prefix "runlock/prod/web/.slot/" { policy = "read" }');
  }
});
