// What a failed run left in maintenance: its claim says so, `status` shows it, and a run that will not end it says which command does.
import { writeFileSync } from 'node:fs';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { succeeded } from '../support/consul-api.ts';
import { useAgent } from '../support/use-agent.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const agent = useAgent({ name: 'web01' });
beforeAll(async () => {
  for (const name of ['web', 'db']) {
    const service = { Name: name, ID: `${name}-1`, Check: { TTL: '600s', Status: 'passing' } };
    succeeded(await agent.http('PUT', '/v1/agent/service/register', service), 'registering');
  }
});
afterEach(async () => {
  for (const path of ['service/maintenance/web-1', 'service/maintenance/db-1', 'maintenance'])
    succeeded(await agent.http('PUT', `/v1/agent/${path}?enable=false`), 'ending maintenance');
  await agent.kv.deleteTree('runlock/');
});

const GROUP = ['-g', 'prod/web', '-w', '0'];
const OUT = ['--service', 'web', '--gate-stable', '0', '--maintenance'];
const gated = (service: string) => ['--service', service, '--gate-stable', '0'];
const exec = (args: readonly string[], command: string) =>
  runlock(agent, ['exec', ...GROUP, ...args, '--', command]);

async function maintenances(): Promise<string[]> {
  const checks = succeeded(await agent.http('GET', '/v1/agent/checks'), 'checks').json() as object;
  return Object.keys(checks).filter((id) => id.startsWith('_'));
}

/** Of slot 0's claim in prod/web: what it says of maintenance. */
async function left(): Promise<unknown> {
  const { stdout } = await runlock(agent, ['status', 'prod/web', '--json']);
  const report = JSON.parse(stdout) as { groups: { slots: { state: string; maintenance?: unknown }[] }[] };
  return report.groups[0]?.slots[0]?.maintenance;
}

const WARNING =
  "runlock: an earlier run left web01 in maintenance (web), and this run does not end the maintenance, because the run does not name the same services (--service); to end it: 'runlock gate leave --service web' on web01\n";

test('a run without --service says what it will not end, and the command that it names ends it', async () => {
  const failed = await exec(OUT, 'false');
  expect(failed.stderr).toContain(
    " until a run with --service web succeeds; to end it: 'runlock gate leave --service web' on web01\n",
  );
  expect(await exec([], 'true')).toEqual({ status: 0, stdout: '', stderr: WARNING });
  expect(await maintenances()).toEqual(['_service_maintenance:web-1']);
  const [, words = ''] = /'runlock (.*?)'/.exec(WARNING) ?? [];
  expect(await runlock(agent, words.split(' '))).toMatchObject({ status: 0 });
  expect(await maintenances()).toEqual([]);
});

test('status has it on the line of the node, and says that it is so', async () => {
  await exec(OUT, 'false');
  const { stdout } = await runlock(agent, ['status', 'prod/web']);
  expect(stdout).toMatch(/^ {2}SLOT +STATE +NODE .* HOLD +MAINTENANCE$/m);
  expect(stdout).toMatch(/^ {2}0 +failed +web01 .* web$/m);
  expect(stdout).toMatch(
    /slot 0: web01 failed \S+ ago \(false, exit 1\), left web in maintenance and holds the slot/,
  );
  expect(await left()).toEqual({ services: ['web'] });
  await exec(gated('web'), 'true');
  expect((await runlock(agent, ['status', 'prod/web'])).stdout).not.toContain('MAINTENANCE');
});

test('a run that names the service ends it and says nothing; one that names another says it', async () => {
  await exec(OUT, 'false');
  const other = await exec(gated('db'), 'false');
  expect(other.stderr.split('\n')[0]).toBe(WARNING.trimEnd());
  expect(await exec(gated('db,web'), 'true')).toEqual({ status: 0, stdout: '', stderr: '' });
  expect(await maintenances()).toEqual([]);
  expect(await exec([], 'true')).toEqual({ status: 0, stdout: '', stderr: '' });
});

test('it is remembered by every claim until a good run, and added to by one that leaves more', async () => {
  await exec(OUT, 'false');
  expect((await exec([], 'false')).stderr).toContain(WARNING);
  expect((await exec(gated('db'), 'false')).stderr).toContain(WARNING);
  expect(await left()).toEqual({ services: ['web'] });
  const more = await exec([...gated('db'), '--maintenance'], 'false');
  expect(more.stderr).toContain(WARNING);
  expect(await left()).toEqual({ services: ['db', 'web'] });
  const plain = await exec([], 'true');
  expect(plain.stderr).toContain("to end it: 'runlock gate leave --service db,web' on web01");
});

test('also by the claim of a run that lost its session and took its slot back', async () => {
  const { folder } = stage();
  await exec(OUT, 'false');
  const wait = `until [ -e ${folder}/go ]; do sleep 0.1; done; exit 1`;
  const run = startRunlock(agent, ['exec', ...GROUP, '-v', '--', 'sh', '-c', wait]);
  await run.says(/web01 acquired slot 0/);
  const { Session: session = '' } = (await agent.kv.get('runlock/prod/web/.slot/0/lock')) ?? {};
  succeeded(await agent.http('PUT', `/v1/session/destroy/${session}`), 'destroying the session');
  await run.says(/reacquired the lock of prod\/web/, 30_000);
  expect(await left()).toEqual({ services: ['web'] });
  writeFileSync(`${folder}/go`, '');
  expect(await run.ended).toMatchObject({ status: 1 });
  expect(await left()).toEqual({ services: ['web'] });
});

test('also by acquire and release --failed; a good release ends it', async () => {
  await exec(OUT, 'false');
  expect(await runlock(agent, ['acquire', 'prod/web', '-w', '0'])).toMatchObject({ status: 0 });
  expect(await left()).toEqual({ services: ['web'] });
  expect(await runlock(agent, ['release', 'prod/web', '--failed'])).toMatchObject({ status: 0 });
  expect(await left()).toEqual({ services: ['web'] });
  expect(await runlock(agent, ['acquire', 'prod/web', '-w', '0'])).toMatchObject({ status: 0 });
  expect(await runlock(agent, ['release', 'prod/web'])).toMatchObject({ status: 0 });
  expect(await maintenances()).toEqual([]);
});

test('the whole node: any run behind a gate ends it, and one without is told how', async () => {
  await exec([...gated('web'), '--maintenance=node'], 'false');
  expect(await left()).toEqual({ services: [], node: true });
  const plain = await exec([], 'false');
  expect(plain.stderr).toContain('in maintenance (the whole node), and this run');
  expect(plain.stderr).toContain("to end it: 'runlock gate leave --service auto' on web01");
  expect(await exec(gated('db'), 'true')).toEqual({ status: 0, stdout: '', stderr: '' });
  expect(await maintenances()).toEqual([]);
});

test('in several groups it is said once, and below the prefix where it is', async () => {
  const both = ['-g', 'rack/r4', '--prefix', 'runlock/elsewhere'];
  await exec([...both, ...OUT], 'false');
  const plain = await exec(both, 'true');
  expect(plain.stderr.match(/in maintenance/g)).toHaveLength(1);
  expect(plain.stderr).toContain("'runlock gate leave --service web --prefix runlock/elsewhere' on web01");
});
