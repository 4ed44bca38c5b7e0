// `runlock task run --triggered`, as a node's agent starts it: whether the command begins, and what is known after it.
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { Cursor } from '../../src/jobs/cursor.ts';
import type { RunRecord } from '../../src/lock/records.ts';
import type { StateDocument } from '../../src/state/document.ts';
import { eventually } from '../support/processes.ts';
import { RUNLOCK } from '../support/program.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ name: 'node1' });

function fifo(): string {
  const { folder } = stage();
  execFileSync('mkfifo', [`${folder}/gate`]);
  return `${folder}/gate`;
}

/** Tasks of one group each: `on`, the shell's line, other keys. */
function triggers(files: Readonly<Record<string, readonly [on: string, line: string, more?: string]>>) {
  const { folder } = stage();
  const at = `${folder}/tasks.d`;
  mkdirSync(at, { mode: 0o755 });
  for (const [name, [on, line, more = '']] of Object.entries(files)) {
    const text = `command = ["/bin/sh", "-c", ${JSON.stringify(line)}]\ngroup = "tr/${name}"\nhold = "none"\non = ["${on}"]\n${more}`;
    writeFileSync(`${at}/${name}.toml`, text, { mode: 0o600 });
  }
  const env = { RUNLOCK_TASKS_DIR: at };
  const words = (name: string) => ['task', 'run', name, '--triggered', '--verbose'];
  const read = async <T>(key: string) => {
    const entry = await agent.kv.get(`runlock/${key}`);
    return entry && { ...(JSON.parse(entry.Value) as T), at: entry.ModifyIndex };
  };
  return {
    run: (name: string) => runlock(agent, words(name), { env }),
    start: (name: string) => startRunlock(agent, words(name), { env }),
    set: (path: string, value: string) => runlock(agent, ['state', 'set', path, value]),
    cursor: (name: string) => read<Cursor>(`.triggers/node1/${name}`),
    record: (name: string) => read<RunRecord>(`tr/${name}/.runs/node1`),
    state: (path: string) => read<StateDocument>(`.state/${path}/.value`),
  };
}

describe('a run that a change asks for', () => {
  test('runs once for a change; its end and what it has seen are one write', async () => {
    const { run, set, cursor, record, state } = triggers({ one: ['state:one', 'echo ran'] });
    expect(await run('one')).toMatchObject({
      status: 81,
      stderr: expect.stringContaining('nothing asks for it any more') as string,
    });
    await set('one', '1');
    expect(await run('one')).toMatchObject({ status: 0, stdout: 'ran\n' });
    const seen = await cursor('one');
    expect(seen?.marks).toEqual({ 'state:one': { mark: (await state('one'))?.change } });
    expect(seen?.at).toBe((await record('one'))?.at);
    expect(await record('one')).toMatchObject({ cause: ['one@node1'], depth: 1 });
    expect(await run('one')).toMatchObject({ status: 81, stdout: '' });
  });

  test('one for all changes until its command begins, and another for those after that', async () => {
    const gate = fifo();
    const { start, run, set } = triggers({ two: ['state:two', `echo on; cat ${gate}`] });
    await set('two', '1');
    await set('two', '2');
    const running = start('two');
    await eventually(() => expect(running.stdout()).toBe('on\n'));
    await set('two', '3');
    writeFileSync(gate, '');
    expect(await running.ended).toMatchObject({ status: 0 });
    const second = start('two');
    writeFileSync(gate, '');
    expect(await second.ended).toMatchObject({ status: 0, stdout: 'on\n' });
    expect(await run('two')).toMatchObject({ status: 81 });
  });

  test('that fails leaves the change as news, and the next may not start yet', async () => {
    const { run, set, cursor } = triggers({ bad: ['state:bad', 'exit 3'] });
    await set('bad', '1');
    expect(await run('bad')).toMatchObject({ status: 3 });
    const after = await cursor('bad');
    expect(after).toMatchObject({ failures: 1 });
    expect(after?.marks['state:bad']).not.toHaveProperty('mark');
    expect(after).not.toHaveProperty('run');
    expect(await run('bad')).toMatchObject({
      status: 81,
      stderr: expect.stringContaining('its last runs failed') as string,
    });
  });

  test('that was killed counts as failed when the next one is to start', async () => {
    const { start, run, set, cursor } = triggers({ kill: ['state:kill', 'echo on; exec sleep 60'] });
    await set('kill', '1');
    const running = start('kill');
    await eventually(() => expect(running.stdout()).toBe('on\n'));
    expect(await cursor('kill')).toMatchObject({ run: expect.any(String) as string });
    running.signal('SIGKILL');
    await running.ended;
    expect(await run('kill')).toMatchObject({
      status: 81,
      stderr: expect.stringContaining('the run before it was lost') as string,
    });
    expect(await cursor('kill')).toMatchObject({ failures: 1 });
  });

  test('does not begin for a cursor of a newer runlock, and replaces what is none', async () => {
    const { run, set } = triggers({ odd: ['state:odd', 'echo ran'] });
    await set('odd', '1');
    await agent.kv.put('runlock/.triggers/node1/odd', '{"v":9}');
    expect(await run('odd')).toMatchObject({ status: 78, stdout: '' });
    await agent.kv.put('runlock/.triggers/node1/odd', 'rubbish');
    expect(await run('odd')).toMatchObject({ status: 0, stdout: 'ran\n' });
  });
});

describe('what led to a run', () => {
  test('stands in its record, its states and what its command sets, and ends a loop', async () => {
    const inner = () => `env.CONSUL_HTTP_ADDR = "${agent.env['CONSUL_HTTP_ADDR'] ?? ''}"`;
    const { run, set, state, cursor, record } = triggers({
      ping: [
        'state:b',
        `${RUNLOCK} state set inner 1 && ${RUNLOCK} state get a/busy --json`,
        `publish = "a=1"\nduring = "a/busy=1"\n${inner()}`,
      ],
      pong: ['state:a', 'true', 'publish = "b=1"'],
    });
    await set('b', '0');
    const first = await run('ping');
    expect(first).toMatchObject({ status: 0 });
    const causes = { cause: ['ping@node1'], depth: 1 };
    expect(JSON.parse(first.stdout.split('\n').slice(1).join('\n'))).toMatchObject(causes);
    for (const path of ['a', 'inner']) expect(await state(path)).toMatchObject(causes);
    expect(await run('pong')).toMatchObject({ status: 0 });
    expect(await record('pong')).toMatchObject({ cause: ['ping@node1', 'pong@node1'], depth: 2 });
    const looped = await run('ping');
    expect(looped).toMatchObject({ status: 81, stdout: '' });
    expect(looped.stderr).toContain(
      'its own runs have led to the change: ping@node1, pong@node1, ping@node1',
    );
    expect((await cursor('ping'))?.refused).toMatchObject({ why: 'loop', depth: 3 });
    expect((await run('ping')).stderr).toContain('nothing asks for it any more');
  });
});
