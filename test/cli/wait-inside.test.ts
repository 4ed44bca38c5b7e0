// `runlock wait` inside a run: warned of, and refused where it would wait for the end of that very run.
import { describe, expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { RUNLOCK } from '../support/program.ts';
import { runlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

/** The wait's own exit code and stderr, of a run of `n` in the group. */
async function inside(group: string, args: readonly string[]) {
  const script = '"$@" 2>&1; echo "status $?"; true';
  const words = [
    'exec',
    '-g',
    group,
    '--node',
    'n',
    '--',
    'sh',
    '-c',
    script,
    'sh',
    RUNLOCK,
    'wait',
    ...args,
  ];
  const { stdout } = await runlock(agent, words);
  const [, status] = /status (\d+)\n$/.exec(stdout) ?? [];
  return { status: Number(status), said: stdout };
}

describe('a wait for the last run of its own node', () => {
  test.each([
    ['--until', 'good:n@own/none', 'none'],
    ['--until', 'good:*@own/bad', 'bad'],
    ['--until', 'good:n@own/bad', 'bad'],
    ['--while', 'good:n@own/good', 'good'],
    ['--until', 'not:good:n@own/good', 'good'],
  ])('%s %s is refused: its own run would have to end first', async (option, condition, before) => {
    const group = groupOf(agent, `own/${before}`);
    if (before !== 'none') await group.exec('n', '--', before === 'good' ? 'true' : 'false');
    const { status, said } = await inside(`own/${before}`, ['--timeout', '20s', option, condition]);
    expect(said).toContain('this wait is inside the run that it waits for, so it would never end');
    expect(status).toBe(64);
  });

  test('that began before it is not: what is recorded already may be enough', async () => {
    await groupOf(agent, 'own/before').exec('n', '--', 'true');
    expect((await inside('own/before', ['--timeout', '0', '--until', 'good:n@own/before'])).status).toBe(0);
    const since = ['--timeout', '20s', '--since', 'start', '--until', 'good:n@own/before'];
    expect((await inside('own/before', since)).status).toBe(64);
  });

  test('of another group, and of another node, is only warned of', async () => {
    for (const condition of ['good:n@own/elsewhere', 'good:m@own/here']) {
      const { status, said } = await inside('own/here', ['--timeout', '300ms', '--until', condition]);
      expect(said).toContain('this wait is inside a run, which keeps its slot of own/here meanwhile');
      expect(status).toBe(75);
    }
  });

  test('is refused with --any only where nothing else could come', async () => {
    const any = ['--any', '--timeout', '500ms'];
    const own = (group: string) => ['--until', `good:n@${group}`, '--until', `idle:${group}`];
    expect((await inside('own/any', [...any, ...own('own/any')])).status).toBe(64);
    const more = [...any, ...own('own/more'), '--until', 'state:own/any'];
    expect((await inside('own/more', more)).status).toBe(75);
  });

  test('is none where the run is over, and a daemon that it left waits for the next one', async () => {
    const args = ['wait', '--timeout', '300ms', '--until', 'good:n@own/daemon'];
    const env = {
      RUNLOCK_RUN_ID: 'a-run-that-is-over',
      RUNLOCK_RUN_NODE: 'n',
      RUNLOCK_RUN_GROUP: 'own/daemon',
    };
    expect((await runlock(agent, args, { env })).status).toBe(75);
  });
});

test('a wait for what its own run would publish is warned of, and ends in time', async () => {
  const { status, said } = await inside('own/state', ['--timeout', '300ms', '--until', 'state:own/state']);
  expect(said).toContain("to wait without a slot, use 'runlock exec --when'");
  expect(status).toBe(75);
});
