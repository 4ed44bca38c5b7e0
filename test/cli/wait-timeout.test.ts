// Where the --timeout of `runlock wait` may stand: it is not the `timeout` that kills a command of exec.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

/** A configuration file with these lines, gone after the test. */
function fileOf(...lines: readonly string[]): string {
  const path = join(stage().folder, 'config.toml');
  writeFileSync(path, lines.map((line) => `${line}\n`).join(''));
  return path;
}

const wait = (args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  runlock(agent, ['wait', '--until', 'state:never', ...args], { env });

describe('the time of a wait', () => {
  test('is not the one after which exec kills its command, in the file or the environment', async () => {
    const file = fileOf('timeout = "1s"');
    for (const run of [
      () => wait(['--config', file]),
      () => wait([], { RUNLOCK_TIMEOUT: '1s' }),
      () => wait(['--config', file], { RUNLOCK_TIMEOUT: '1s' }),
    ]) {
      const { status, stdout, stderr } = await run();
      expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
      expect(stderr).toMatch(/--timeout is required, .*RUNLOCK_WAIT_TIMEOUT.*wait_timeout/);
    }
  });

  test('is --timeout, RUNLOCK_WAIT_TIMEOUT, or wait_timeout of the file or a group’s section', async () => {
    const file = fileOf('wait_timeout = "1h"', '[groups."own"]', 'wait_timeout = "0"');
    const { env } = { env: { RUNLOCK_WAIT_TIMEOUT: '0' } };
    for (const run of [
      () => wait(['--config', fileOf('wait_timeout = "0"')]),
      () => wait(['--config', file, '-g', 'own']),
      () => wait(['--config', file], env),
      () => wait([], env),
      () => wait(['--timeout', '0'], { RUNLOCK_WAIT_TIMEOUT: '1h' }),
    ])
      expect(await run()).toMatchObject({
        status: 75,
        stderr: expect.stringContaining('timed out') as string,
      });
  });

  test('kills no command of exec', async () => {
    const file = fileOf('wait_timeout = "1ms"');
    const args = ['exec', '-g', 'slow', '--config', file, '--', 'sleep', '0.2'];
    const { status } = await runlock(agent, args, { env: { RUNLOCK_WAIT_TIMEOUT: '1ms' } });
    expect(status).toBe(0);
  });

  test('that is wrong is named by where it stands', async () => {
    const inEnvironment = await wait([], { RUNLOCK_WAIT_TIMEOUT: 'soon' });
    expect(inEnvironment).toMatchObject({
      status: 64,
      stderr: expect.stringMatching(/RUNLOCK_WAIT_TIMEOUT=soon: not a duration/) as string,
    });
    const file = fileOf('wait_timeout = "soon"');
    const inFile = await wait(['--config', file]);
    expect(inFile).toMatchObject({
      status: 78,
      stderr: expect.stringContaining(`${file}:1: wait_timeout = "soon": not a duration`) as string,
    });
  });

  test('is shown by runlock config, and is unknown to nobody', async () => {
    const config = await runlock(agent, ['config', 'wait', '--json'], {
      env: { RUNLOCK_WAIT_TIMEOUT: '7m' },
    });
    const { options } = JSON.parse(config.stdout) as { options: readonly object[] };
    expect(options).toContainEqual({
      ...{ option: 'wait_timeout', value: '7m', from: 'environment', variable: 'RUNLOCK_WAIT_TIMEOUT' },
    });
    expect(config.stderr).toBe('');
  });
});
