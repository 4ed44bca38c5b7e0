// The rights that docs/rights.md names are enough, and each of them is needed.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const page = readFileSync(new URL('../../docs/rights.md', import.meta.url), 'utf8');
const policy = /<!-- least-rights.*?-->\n```hcl\n(.*?)```/s.exec(page)?.[1] ?? '';
const rules = policy.trim().split('\n');

const agent = useAgent({ acl: true, name: 'web01' });

const withRules = async (lines: readonly string[]) => ({
  env: { ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(lines.join('\n')) },
});

test('docs/rights.md names four rules for a node', () => {
  expect(rules).toHaveLength(4);
  expect(rules.every((rule) => /^(session|key|key_prefix) "[^"]+" \{ policy = "write" \}$/.test(rule))).toBe(
    true,
  );
});

test('with exactly these rights a node fails, comes back, waits, evicts and looks at its group', async () => {
  const node = await withRules(rules);
  const inGroup = ['exec', '-g', 'prod/web'];
  expect((await runlock(node, [...inGroup, '--', 'false'])).status).toBe(1);
  expect((await runlock(node, [...inGroup, '--node', 'web02', '-w', '0', '--', 'true'])).status).toBe(75);
  expect(await runlock(node, [...inGroup, '--', 'true'])).toMatchObject({ status: 0, stderr: '' });
  expect((await runlock(node, [...inGroup, '--', 'false'])).status).toBe(1);
  expect((await runlock(node, ['release', 'prod/web'])).stdout).toContain(
    'cleared the failed claim of web01',
  );
  const long = startRunlock(node, [...inGroup, '-v', '--', 'sleep', '300']);
  await long.says(/web01 acquired slot 0 of prod\/web/);
  expect((await runlock(node, ['release', 'prod/web', '--owner', 'web01', '--force'])).status).toBe(0);
  expect((await long.ended).status).toBe(79);
  const status = await runlock(node, ['status', 'prod/web']);
  expect(status).toMatchObject({ status: 0, stderr: '' });
  expect(status.stdout).toContain('idle');
});

test.for([0, 1, 2, 3])(
  'without rule %i nothing runs, exit 77, and the message names the rule',
  async (missing) => {
    const node = await withRules(rules.filter((_, index) => index !== missing));
    const { status, stdout, stderr } = await runlock(node, ['exec', '-g', 'prod/web', '--', 'echo', 'ran']);
    expect({ status, stdout }).toEqual({ status: 77, stdout: '' });
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    const rule = (rules[missing] ?? '').replace('session "web01"', 'session "NODE"');
    expect(stderr).toContain(rule);
  },
);

test('a run whose token is rotated under it gives its slot back', async () => {
  const file = join(stage().folder, 'token');
  const first = await agent.token(rules.join('\n'));
  writeFileSync(file, first);
  const node = { env: { ...agent.env, CONSUL_HTTP_TOKEN_FILE: file } };
  const go = join(stage().folder, 'go');
  const until = ['sh', '-c', `until test -e ${go}; do sleep 0.1; done`];
  const run = startRunlock(node, ['exec', '-g', 'prod/web', '-v', '--', ...until]);
  await run.says(/web01 acquired slot 0 of prod\/web/);
  writeFileSync(file, await agent.token(rules.join('\n')));
  const own = await agent.http('GET', '/v1/acl/token/self', undefined, { token: first });
  await agent.http('DELETE', `/v1/acl/token/${(own.json() as { AccessorID: string }).AccessorID}`);
  writeFileSync(go, '');
  expect(await run.ended).toMatchObject({ status: 0 });
  expect(await agent.kv.keys('runlock/prod/web/.slot/')).toEqual([]);
});

test('release with a token that may not read says so, and does not say that there is nothing', async () => {
  const blind = await withRules(['node_prefix "" { policy = "read" }']);
  const { status, stdout, stderr } = await runlock(blind, ['release', 'prod/web', '--owner', 'web01']);
  expect({ status, stdout }).toEqual({ status: 77, stdout: '' });
  expect(stderr).toContain('key_prefix "runlock/prod/web/"');
});

test('status of all groups says that some may be missing, and by which rule, only where they may', async () => {
  const node = await withRules(rules);
  await agent.kv.put('runlock/secret/.slot/0/owner', '{}');
  await runlock(node, ['exec', '-g', 'prod/web', '--', 'true']);
  const { status, stdout } = await runlock(node, ['status']);
  expect(status).toBe(0);
  expect(stdout).toContain('prod/web');
  expect(stdout).not.toContain('secret');
  expect(stdout).toMatch(
    /\n\ngroups and freezes may be missing here: .* rule: key_prefix "runlock\/" \{ policy = "read" \}\n$/,
  );
  const { hidden } = JSON.parse((await runlock(node, ['status', '--json'])).stdout) as { hidden?: string };
  expect(hidden).toContain('key_prefix "runlock/"');
  const all = await withRules([...rules, 'key_prefix "runlock/" { policy = "read" }']);
  expect((await runlock(all, ['status'])).stdout).not.toContain('may be missing');
  await agent.kv.delete('runlock/secret/.slot/0/owner');
});

test('history of all groups, and --forget, say that nodes may be missing, only where they may', async () => {
  const node = await withRules(rules);
  await runlock(node, ['exec', '-g', 'prod/web', '--', 'true']);
  const missing = /\nnodes may be missing here: .* rule: key_prefix "runlock\/" \{ policy = "read" \}\n$/;
  const { status, stdout } = await runlock(node, ['history']);
  expect(status).toBe(0);
  expect(stdout).toContain('prod/web');
  expect(stdout).toMatch(missing);
  const { hidden } = JSON.parse((await runlock(node, ['history', '--json'])).stdout) as { hidden?: string };
  expect(hidden).toContain('key_prefix "runlock/"');
  expect((await runlock(node, ['history', 'prod/web'])).stdout).not.toContain('may be missing');
  const forgot = await runlock(node, ['history', '--forget', 'web09']);
  expect(forgot.status).toBe(0);
  expect(forgot.stdout).toMatch(missing);
  const all = await withRules([...rules, 'key_prefix "runlock/" { policy = "read" }']);
  expect((await runlock(all, ['history'])).stdout).not.toContain('may be missing');
  expect((await runlock(all, ['history', '--forget', 'web09'])).stdout).not.toContain('may be missing');
});

test('history --silent-for of all groups is no verdict where some may not be read', async () => {
  const node = await withRules(rules);
  const { status, stdout, stderr } = await runlock(node, ['history', '--silent-for', '1d']);
  expect({ status, stdout }).toEqual({ status: 77, stdout: '' });
  expect(stderr).toContain('key_prefix "runlock/" { policy = "read" }');
});

describe('without a token', () => {
  const anonymous = () => ({ env: { ...agent.env, CONSUL_HTTP_TOKEN: '', CONSUL_HTTP_TOKEN_FILE: '' } });

  test.each([
    ['exec', '-g', 'prod/web', '--', 'echo', 'ran'],
    ['status', 'prod/web'],
    ['history'],
    ['freeze', 'prod/web', '--reason', 'x'],
    ['acquire', 'prod/web'],
    ['release', 'prod/web'],
  ])('%s says that there is none, and names the rule, doctor and the page of rights', async (...args) => {
    const { status, stdout, stderr } = await runlock(anonymous(), args);
    // Who looks sees what can be seen, and what can't.
    const looks = ['status', 'history'].includes(args[0]);
    expect(status).toBe(looks ? 0 : 77);
    expect(looks ? stderr : stdout).toBe('');
    expect(looks ? stdout : stderr).toMatch(
      /Consul at \S+ refused \([^)]*\), and no token is set \(CONSUL_HTTP_TOKEN_FILE or CONSUL_HTTP_TOKEN\); the token needs the rule: [^\n]+ \('runlock doctor' tries every right, 'runlock policy' prints the rules\)\n/,
    );
  });

  test('is not said to one that has a token', async () => {
    const node = await withRules(['key_prefix "elsewhere/" { policy = "read" }']);
    const { stdout } = await runlock(node, ['status', 'prod/web']);
    expect(stdout).toContain('the token needs the rule: ');
    expect(stdout).not.toMatch(/no token|doctor/);
  });
});
