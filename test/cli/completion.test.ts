// What the Tab key offers in the real shells, with the script that `runlock completion` prints.
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { startAgent } from '../support/consul.ts';
import { useAgent } from '../support/use-agent.ts';
import { eventually } from '../support/processes.ts';
import { spawnRunlock } from '../support/program.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { shells } from '../support/shells.ts';

const agent = useAgent();
beforeAll(async () => {
  for (const [group, node] of [
    ['prod/web', 'web01'],
    ['prod/db', 'db01'],
    ['test', 'web09'],
  ] as const)
    await spawnRunlock(agent, ['exec', '-g', group, '--node', node, '--', 'false']).ended;
});

describe.each(['bash', 'zsh', 'fish'] as const)('%s completes', (name) => {
  const start = (env: Record<string, string> = {}) => shells[name]({ ...agent.env, ...env });

  test('commands and options, and nothing that is hidden', async () => {
    const shell = await start();
    expect(await shell.offers('runlock sta')).toEqual(['state', 'status']);
    expect(await shell.offers('runlock ')).toEqual(
      expect.arrayContaining(['exec', 'help', 'release', 'status']),
    );
    expect(await shell.offers('runlock __')).toEqual([]);
    expect(await shell.offers('runlock exec --s')).toEqual([
      '--service',
      '--session-ttl',
      '--settle',
      '--slots',
      '--splay',
    ]);
    expect(await shell.offers('runlock help rel')).toEqual(['release']);
  });

  test('the words that an option takes, apart from it and behind an equals sign', async () => {
    const shell = await start();
    expect(await shell.offers('runlock exec --hold ')).toEqual(['forever', 'none']);
    expect(await shell.offers('runlock exec -vw f')).toEqual(['forever']);
    expect(await shell.offers('runlock exec --hold=')).toEqual(['forever', 'none']);
    expect(await shell.offers('runlock status --log-format=j')).toEqual(['json']);
    expect(await shell.offers('runlock completion ')).toEqual(['bash', 'fish', 'zsh']);
  });

  test('files where an option takes one', async () => {
    const shell = await start();
    writeFileSync(join(shell.folder, 'my.toml'), '');
    expect(await shell.offers('runlock exec --config my')).toEqual(['my.toml']);
  });

  test('groups as they are in Consul', async () => {
    const shell = await start();
    expect(await shell.offers('runlock status ')).toEqual(['prod/db', 'prod/web', 'test']);
    expect(await shell.offers('runlock status test prod/w')).toEqual(['prod/web']);
    expect(await shell.offers('runlock forget prod/')).toEqual(['prod/db', 'prod/web']);
    expect(await shell.offers('runlock exec -n 2 --group=prod/')).toEqual(['prod/db', 'prod/web']);
    expect(await shell.offers('runlock exec --prefix elsewhere -g ')).toEqual([]);
  });

  test('who has a claim in the group, and not who waits', async () => {
    const waiter = startRunlock(agent, ['exec', '-g', 'prod/web', '--node', 'web02', '--', 'true']);
    await eventually(async () => expect(await agent.kv.keys('runlock/prod/web/.queue/')).toHaveLength(1));
    const shell = await start({ RUNLOCK_GROUP: 'test' });
    expect(await shell.offers('runlock release prod/web --owner ')).toEqual(['web01']);
    expect(await shell.offers('runlock release -g prod/db --owner=')).toEqual(['db01']);
    expect(await shell.offers('runlock release --owner ')).toEqual(['web09']);
    waiter.signal('SIGTERM');
    await waiter.ended;
  });

  test('the command of exec as if it stood alone', async () => {
    const shell = await start();
    writeFileSync(join(shell.folder, 'site.yml'), '');
    expect(await shell.offers('runlock exec -g test -- runlo')).toContain('runlock');
    expect(await shell.offers('runlock exec realp')).toContain('realpath');
    expect(await shell.offers('runlock exec --hold=none -- cat ./si')).toEqual(['./site.yml']);
    expect(await shell.offers('runlock exec -- cat --hold ')).toContain('site.yml');
  });

  test('without running what stands in the line', async () => {
    const shell = await start();
    await shell.offers('runlock status $(touch ran) "`touch ran`" prod');
    expect(existsSync(join(shell.folder, 'ran'))).toBe(false);
  });
});

describe.each(['bash', 'zsh', 'fish'] as const)('%s completes what nodes publish:', (name) => {
  const start = async () => {
    for (const path of ['tab/schema', 'tab/seed', 'other']) await runlock(agent, ['state', 'set', path, '1']);
    return shells[name]({ ...agent.env });
  };

  test('paths of states, one where one is taken', async () => {
    const shell = await start();
    expect(await shell.offers('runlock state get tab/')).toEqual(['tab/schema', 'tab/seed']);
    expect(await shell.offers('runlock state get tab/sc')).toEqual(['tab/schema']);
    expect(await shell.offers('runlock state watch other ')).toEqual(['other', 'tab/schema', 'tab/seed']);
    expect(await shell.offers('runlock state de')).toEqual(['delete']);
    expect(await shell.offers('runlock state set tab/schema ')).toEqual([]);
    expect(await shell.offers('runlock state prune ')).toEqual([]);
    expect(await shell.offers('runlock exec -g test --publish tab/')).toEqual(['tab/schema', 'tab/seed']);
    expect(await shell.offers('runlock exec --during ot')).toEqual(['other']);
  });

  test('names in conditions', async () => {
    const shell = await start();
    // Readline replaces what stands behind the last colon, so its first one alone is seen with what is before that.
    const offered = async (line: string, lead: string) =>
      (await shell.offers(line))
        .map((word) => (name === 'bash' && !word.startsWith(lead) ? `${lead}${word}` : word))
        .sort();
    expect(await offered('runlock wait --until state:tab/', 'state:')).toEqual([
      'state:tab/schema',
      'state:tab/seed',
    ]);
    expect(await offered('runlock wait --while not:idle:prod/', 'not:idle:')).toEqual([
      'not:idle:prod/db',
      'not:idle:prod/web',
    ]);
    expect(await offered('runlock wait --until=state:', 'state:')).toEqual([
      'state:other',
      'state:tab/schema',
      'state:tab/seed',
    ]);
    expect(await shell.offers('runlock wait --until healthy:')).toEqual([]);
  });
});

describe('what cannot be looked up', () => {
  const complete = (env: Record<string, string>, ...words: string[]) =>
    runlock(agent, ['__complete', '--', ...words], { env });
  const nothing = { status: 0, stdout: '', stderr: '' };

  test.each([
    ['nothing listens', { CONSUL_HTTP_ADDR: '127.0.0.1:1' }],
    ['the address is none', { CONSUL_HTTP_ADDR: 'ftp://x' }],
    ['the token is missing', { CONSUL_HTTP_TOKEN_FILE: '/nowhere' }],
  ])('is passed over in silence: %s', async (_, env) => {
    expect(await complete(env, 'status', '')).toEqual(nothing);
  });

  test('keeps nobody waiting: an agent that says nothing', async () => {
    await using silent = await startAgent();
    silent.pause();
    const startedMs = performance.now();
    expect(await runlock(silent, ['__complete', '--', 'release', '--owner', ''])).toEqual(nothing);
    // A request that somebody waits for is given ten seconds.
    expect(performance.now() - startedMs).toBeLessThan(9_000);
  });

  test('does not keep back what is known without it: settings that are wrong', async () => {
    const env = { RUNLOCK_GROUP: '..', RUNLOCK_PREFIX: '/', RUNLOCK_LOG_FORMAT: 'xml' };
    expect(await complete(env, 'exec', '--hold', 'f')).toEqual({ ...nothing, stdout: 'forever\t\n' });
  });

  test('is left out: a group in which nobody has run', async () => {
    const node = { ...nothing, stdout: 'web01\thas run in this group\n' };
    expect(await complete({}, 'history', 'prod/web', 'empty', '--forget', '')).toEqual(node);
  });

  test('is left out: a claim that cannot be read, a key that is no group of runlock', async () => {
    await agent.kv.put('odd/a b/.slot/0/owner', 'x');
    await agent.kv.put('odd/team/.slot/0/owner', 'x');
    await agent.kv.put('odd/notes', 'x');
    const env = { RUNLOCK_PREFIX: 'odd' };
    expect(await complete(env, 'thaw', '')).toEqual({ ...nothing, stdout: 'team\tgroup\n' });
    expect(await complete(env, 'release', 'team', '--owner', '')).toEqual(nothing);
  });
});

test('a shell that it does not know is wrong usage', async () => {
  const { status, stdout, stderr } = await runlock(undefined, ['completion', 'tcsh']);
  expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
  expect(stderr).toMatch(/unknown shell 'tcsh'; use bash, zsh, fish; see 'runlock completion --help'$/m);
});
