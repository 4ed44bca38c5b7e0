// `runlock wait` inside a run: warned of, and refused where it would wait for the end of that very run.
import { describe, expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { RUNLOCK } from '../support/program.ts';
import { runlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

/** The exit code and stderr of a command of runlock itself, in a run of `n` in the group. */
async function inside(group: string, args: readonly string[], command = 'wait') {
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
    command,
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
    // The runs of the first ones are good, so the last one could change only with the run that it is in.
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
  expect(said).toContain("to wait without a slot, give --when to the 'runlock exec' that started this run");
  expect(status).toBe(75);
});

describe.each(['exec', 'acquire'])('%s --when in a run', (command) => {
  const when = (group: string, condition: string) => {
    const words = ['-g', `${group}/inner`, '--node', 'n', '-w', '3s', '--when', condition];
    return inside(group, command === 'exec' ? [...words, '--', 'echo', 'ran'] : words, command);
  };

  test('is refused at once where it would wait for the end of that run, and starts nothing', async () => {
    const group = `own/${command}`;
    for (const condition of [
      `idle:${group}`,
      `not:active:n@${group}`,
      `good:n@${group}/x`,
      `not:good:n@${group}`,
    ]) {
      const { status, said } = await when(group, condition);
      const isOther = condition.endsWith('/x');
      expect({ condition, status }).toEqual({ condition, status: isOther ? 75 : 64 });
      expect(said).not.toContain('ran\n');
      if (isOther) continue;
      expect(said).toContain(
        `--when ${condition} waits for the end of the run that this command is inside of`,
      );
      expect(await groupOf(agent, `${group}/inner`).keys()).toEqual([]);
    }
  });

  test('of anything else is warned of once', async () => {
    const { status, said } = await when(`own/${command}-warned`, 'state:own/never');
    expect(status).toBe(75);
    expect(said.match(/this wait is inside a run, which keeps its slot of own\/\S+ meanwhile/g)).toHaveLength(
      1,
    );
  });

  test('is neither where that run is over, and a daemon that it left is what waits', async () => {
    const env = { RUNLOCK_RUN_ID: 'over', RUNLOCK_RUN_NODE: 'n', RUNLOCK_RUN_GROUP: `own/${command}-over` };
    const words = [
      command,
      '-g',
      `own/${command}-over`,
      '--node',
      'm',
      '-w',
      '0',
      '--when',
      'state:own/never',
    ];
    const { status, stderr } = await runlock(agent, command === 'exec' ? [...words, '--', 'true'] : words, {
      env,
    });
    expect(status).toBe(75);
    expect(stderr).not.toContain('inside a run');
  });
});
