// What the README says of `consul lock` and `flock`, shown on the real programs.
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { expect, onTestFinished, test } from 'vitest';
import { startAgent, startCluster } from '../support/consul.ts';
import type { Agent } from '../support/consul.ts';
import { isAlive, untilGone } from '../support/processes.ts';
import { stage } from '../support/stage.ts';
import { consulBinary } from '../support/provision.ts';

async function consulLock(agent: Agent, args: readonly string[]): Promise<ChildProcess> {
  const child = spawn(await consulBinary(), ['lock', ...args], {
    env: { ...process.env, ...agent.env },
    stdio: 'ignore',
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  return child;
}

/** A command that says its pid, and lives until it is ended. */
const long = (folder: string) => `echo $$ >${folder}/command.pid; exec sleep 300`;

test('consul lock exits with 0 whatever the command did, and with 2 when asked for its code', async () => {
  await using agent = await startAgent();
  const plain = await consulLock(agent, ['a', 'exit 7']);
  expect(await once(plain, 'exit')).toEqual([0, null]);
  const asked = await consulLock(agent, ['-child-exit-code', 'a', 'exit 7']);
  expect(await once(asked, 'exit')).toEqual([2, null]);
});

test('consul lock killed with SIGKILL leaves its command running', async () => {
  const { folder, pid } = stage();
  await using agent = await startAgent();
  const lock = await consulLock(agent, ['a', long(folder)]);
  const command = await pid('command');
  lock.kill('SIGKILL');
  await once(lock, 'exit');
  expect(isAlive(command)).toBe(true);
});

test('consul lock ends its command when the local agent is restarted', async () => {
  const { folder, pid } = stage();
  await using cluster = await startCluster({ servers: 1, clients: 1, raftMultiplier: 1 });
  const [client] = cluster.clients;
  if (!client) throw new Error('no client');
  await consulLock(client, ['a', long(folder)]);
  const command = await pid('command');
  await client.restart();
  await untilGone(command, 30_000);
});

test('flock killed with SIGKILL leaves its command running, and the lock with it', async () => {
  const { folder, pid } = stage();
  const lock = spawn('flock', [`${folder}/lock`, 'sh', '-c', long(folder)], { stdio: 'ignore' });
  const command = await pid('command');
  lock.kill('SIGKILL');
  await once(lock, 'exit');
  expect(isAlive(command)).toBe(true);
  const second = spawn('flock', ['-n', `${folder}/lock`, 'true'], { stdio: 'ignore' });
  expect(await once(second, 'exit')).toEqual([1, null]);
});
