// `status --check` as a monitoring system runs it: one line on stdout, and 0, 1, 2 or 3.
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import type { Agent } from '../support/consul.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const agent = useAgent({ acl: true, name: 'web01' });

type Target = Pick<Agent, 'env'>;

/** Whatever is found: one line, nothing else. */
async function check(target: Target, ...args: string[]) {
  const { status, stdout, stderr } = await runlock(target, ['status', '--check', ...args]);
  expect(stderr).toBe('');
  expect(stdout).toMatch(/^RUNLOCK (?:OK|WARNING|CRITICAL|UNKNOWN) - [^\n|]+(?: \| [^\n|]+)?\n$/);
  return { status, line: stdout.trimEnd() };
}

const exec = (group: string, node: string, args: readonly string[]) =>
  groupOf(agent, group).exec(node, '--', ...args);

/** The agent, as somebody with these rights alone sees it. */
const withRules = async (...rules: string[]): Promise<Target> => ({
  env: { ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(rules.join('\n')) },
});

describe('a group', () => {
  test('is OK when it is idle, kept WARNING, with somebody waiting CRITICAL, and OK when cleared', async () => {
    await exec('day', 'web01', ['true']);
    expect(await check(agent, 'day')).toEqual({
      status: 0,
      line:
        'RUNLOCK OK - 1 group, 0 runs, 0 waiting | groups=1;;;0 frozen=0;;;0 running=0;;;0 kept=0;;;0 ' +
        'waiting=0;;;0 longest_held=0s;;;0 longest_wait=0s;;;0 circles=0;;;0',
    });
    await exec('day', 'web01', ['sh', '-c', 'exit 3']);
    const kept = await check(agent, '-g', 'day');
    expect(kept.status).toBe(1);
    expect(kept.line).toMatch(
      /^RUNLOCK WARNING - day is blocked by web01, failed \d+s ago \(sh, exit 3\), no runs waiting \| .*kept=1;;;0/,
    );
    const waiter = startRunlock(agent, ['exec', '-g', 'day', '--node', 'web02', '--', 'true']);
    await eventually(async () => expect(await agent.kv.keys('runlock/day/.queue/')).toHaveLength(1));
    const stands = await check(agent, 'day');
    expect(stands.status).toBe(2);
    expect(stands.line).toMatch(
      /^RUNLOCK CRITICAL - day is blocked by web01, failed \d+s ago \(sh, exit 3\), 1 run waiting \|/,
    );
    await runlock(agent, ['release', 'day', '--owner', 'web01']);
    expect((await waiter.ended).status).toBe(0);
    expect((await check(agent, 'day')).status).toBe(0);
  });

  test('is CRITICAL when a run lasts longer than --max-held, or a wait longer than --max-wait', async () => {
    const { folder, pid } = stage();
    const script = `echo $$ >${folder}/command.pid; while ! [ -e ${folder}/end ]; do sleep 0.05; done`;
    const run = startRunlock(agent, ['exec', '-g', 'long', '--node', 'web01', '--', 'sh', '-c', script]);
    await pid('command');
    const waiter = startRunlock(agent, ['exec', '-g', 'long', '--node', 'web02', '--', 'true']);
    await eventually(async () => expect(await agent.kv.keys('runlock/long/.queue/')).toHaveLength(1));
    expect((await check(agent, 'long', '--max-held', '2h', '--max-wait', '1h')).status).toBe(0);
    const held = await check(agent, 'long', '--max-held', '1ms');
    expect(held.status).toBe(2);
    expect(held.line).toMatch(/^RUNLOCK CRITICAL - web01 running in long for \d+s, longer than 0s \|/);
    const waits = await check(agent, 'long', '--max-wait', '1ms');
    expect(waits.status).toBe(2);
    expect(waits.line).toMatch(/^RUNLOCK CRITICAL - web02 waiting in long for \d+s, longer than 0s \|/);
    writeFileSync(`${folder}/end`, '');
    expect((await run.ended).status).toBe(0);
    expect((await waiter.ended).status).toBe(0);
  });

  test('that nobody has used is UNKNOWN: its name may be wrong', async () => {
    const { status, line } = await check(agent, 'dya');
    expect([status, line.split(' |')[0]]).toEqual([
      3,
      'RUNLOCK UNKNOWN - group dya has not been used yet; correct its name, or wait for its first run',
    ]);
    expect((await check(agent, '--prefix', 'nowhere')).status).toBe(3);
  });
});

describe('a token that may not read gets no OK', () => {
  const page = readFileSync(new URL('../../docs/rights.md', import.meta.url), 'utf8');
  const nodes = /<!-- least-rights.*?-->\n```hcl\n(.*?)```/s.exec(page)?.[1]?.trim() ?? '';

  test('none at all, of all groups or one', async () => {
    await exec('prod/web', 'web01', ['true']);
    const nobody = await withRules('node "x" { policy = "read" }');
    await using proxy = await startProxy(agent);
    // The widest right is named, whichever refusal comes first.
    proxy.rule({ match: ({ path }) => path.includes('.may-read'), do: { delayMs: 200 } });
    for (const args of [[], ['prod/web']]) {
      const { status, line } = await check(
        { env: { ...proxy.env, CONSUL_HTTP_TOKEN: nobody.env['CONSUL_HTTP_TOKEN'] ?? '' } },
        ...args,
      );
      expect(status).toBe(3);
      expect(line).toMatch(/^RUNLOCK UNKNOWN - .*the token needs the rule: key_prefix "runlock\//);
    }
  });

  test('a node’s own: its group is OK, of all groups a listing would hide what stands still', async () => {
    await exec('prod/web', 'web01', ['true']);
    await exec('prod/db', 'web01', ['false']);
    const node = await withRules(nodes);
    expect((await check(node, 'prod/web')).status).toBe(0);
    const all = await check(node);
    expect(all).toMatchObject({ status: 3 });
    expect(all.line).toContain('the token needs the rule: key_prefix "runlock/" { policy = "read" }');
    const both = await check(node, 'prod/web', 'prod/db');
    expect(both).toMatchObject({ status: 3 });
    expect(both.line).toContain('key_prefix "runlock/prod/db/" { policy = "read" }');
  });

  test('one that may not see a freeze above the group', async () => {
    await exec('prod/web', 'web01', ['true']);
    const blind = await withRules('key_prefix "runlock/prod/web/" { policy = "read" }');
    const { status, line } = await check(blind, 'prod/web');
    expect(status).toBe(3);
    expect(line).toMatch(
      /the token needs the rule: key "runlock\/(?:prod\/)?\.freeze" \{ policy = "read" \}/,
    );
  });

  test('one that is not known', async () => {
    const env = { ...agent.env, CONSUL_HTTP_TOKEN: '00000000-0000-4000-8000-000000000000' };
    expect(await check({ env }, 'prod/web')).toMatchObject({ status: 3 });
  });

  test('read rights on the prefix are enough', async () => {
    await exec('prod/web', 'web01', ['true']);
    const reader = await withRules('key_prefix "runlock/" { policy = "read" }');
    expect((await check(reader, 'prod/web')).status).toBe(0);
    await exec('prod/mail', 'web01', ['false']);
    expect((await check(reader)).line).toMatch(/prod\/mail is blocked by/);
  });
});

describe('UNKNOWN, too, is', () => {
  test('a Consul that is not there, or does not answer before a monitoring system gives up', async () => {
    await using proxy = await startProxy(agent);
    proxy.rule({ do: 'hang' });
    const [gone, hangs] = await Promise.all([
      check({ env: { CONSUL_HTTP_ADDR: '127.0.0.1:1' } }),
      check(proxy, 'prod/web'),
    ]);
    expect([gone.status, hangs.status]).toEqual([3, 3]);
    expect(gone.line).toMatch(
      /^RUNLOCK UNKNOWN - Consul at 127\.0\.0\.1:1 unreachable \(connection refused\)/,
    );
    expect(hangs.line).toMatch(/^RUNLOCK UNKNOWN - Consul at \S+ did not answer within 9s$/);
  });

  test('bad configuration', async () => {
    expect(await check({ env: { CONSUL_HTTP_ADDR: 'ftp://x' } })).toMatchObject({ status: 3 });
  });

  test.each([
    [['--max-held', 'long'], '--max-held long: not a duration'],
    [['--maximum'], "unknown option '--maximum'"],
    [['prod//web'], 'group prod//web: not a group'],
    [['--json'], '--check and --json exclude each other'],
    [['--watch'], '--check and --watch exclude each other'],
  ])('wrong usage: %j', async (args, words) => {
    const { status, line } = await check(agent, ...args);
    expect([status, line]).toEqual([3, expect.stringContaining(words)]);
  });
});

test('the limits without --check are wrong usage, 64', async () => {
  for (const option of ['--max-held', '--max-wait']) {
    const result = await runlock(agent, ['status', option, '1h']);
    expect(result).toMatchObject({ status: 64, stdout: '' });
    expect(result.stderr).toContain(`${option} needs --check`);
  }
});

test('--help of a check is help', async () => {
  const { status, stdout } = await runlock(agent, ['status', '--check', '--help']);
  expect(status).toBe(0);
  expect(stdout).toMatch(/^Usage: runlock status/);
});
