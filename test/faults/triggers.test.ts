// Tasks that changes start, by the real agent and real runs, while agents and runs are killed and the store goes back.
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { Cursor } from '../../src/jobs/cursor.ts';
import { eventually } from '../support/processes.ts';
import { RUNLOCK } from '../support/program.ts';
import { agentOn } from '../support/runlock-agent.ts';
import { runlock } from '../support/runlock.ts';
import { serve } from '../support/serve.ts';
import { stage } from '../support/stage.ts';
import { useAgent } from '../support/use-agent.ts';

const consul = useAgent({ name: 'node1' });
const set = (path: string, value: string) => runlock(consul, ['state', 'set', path, value]);

interface Step {
  readonly on: string;
  readonly line: string;
  readonly more?: string;
}

/** A node with tasks that each write a line into a file of their own. */
function nodeWith(node: string, steps: Readonly<Record<string, Step>>) {
  const { folder } = stage();
  const tasks = Object.entries(steps).map(([name, { on, line, more = '' }]) => {
    const words = JSON.stringify(['/bin/sh', '-c', `echo x >> ${folder}/${name}; ${line}`]);
    return [
      `${name}.toml`,
      `command = ${words}\ngroup = "${node}/${name}"\nhold = "none"\non = ["${on}"]\n${more}`,
    ];
  });
  const on = agentOn(consul, node, { tasks: Object.fromEntries(tasks) as Record<string, string> });
  const start = async () => {
    const running = on.start();
    await running.says(/is ready/);
    return running;
  };
  return {
    ...on,
    folder,
    start,
    ran: (name: string) => {
      try {
        return readFileSync(`${folder}/${name}`, 'utf8').split('\n').length - 1;
      } catch {
        return 0;
      }
    },
    cursor: async (name: string) => {
      const entry = await consul.kv.get(`runlock/.triggers/${node}/${name}`);
      return entry && (JSON.parse(entry.Value) as Cursor);
    },
  };
}

type Node = ReturnType<typeof nodeWith>;
/** Its last run is over and known. */
const known = (node: Node, name: string, runs: number) =>
  eventually(async () => {
    expect(node.ran(name)).toBe(runs);
    const cursor = await node.cursor(name);
    expect(cursor?.goodAt).toBeDefined();
    expect(cursor).not.toHaveProperty('run');
  }, 15_000);

describe('a change is followed by one run that starts after it', () => {
  test('also one that came while the agent was down; the restart of the agent alone starts none', async () => {
    const node = nodeWith('tr-down', { chef: { on: 'state:down', line: 'true' } });
    const first = await node.start();
    await set('down', '1');
    await known(node, 'chef', 1);
    const [log = '', ...more] = readdirSync(`${node.logs}/triggers`);
    expect([log, more]).toEqual([expect.stringMatching(/^\d{8}T\d{6}\.\d{3}Z\.chef\.log$/), []]);
    expect(readFileSync(`${node.logs}/triggers/${log}`, 'utf8')).not.toContain('error');
    first.signal('SIGKILL');
    await first.ended;
    const second = await node.start();
    await set('down', '2');
    await known(node, 'chef', 2);
    second.signal('SIGTERM');
    await second.ended;
    await set('down', '3');
    await set('down', '4');
    await node.start();
    await known(node, 'chef', 3);
  });

  test('if the agent is killed during it, the run ends by itself, is found, and is not repeated', async () => {
    const { folder } = stage();
    const node = nodeWith('tr-kill', {
      chef: { on: 'state:kill', line: `while [ ! -e ${folder}/go ]; do sleep 0.05; done` },
    });
    const first = await node.start();
    await set('kill', '1');
    await eventually(() => expect(node.ran('chef')).toBe(1));
    first.signal('SIGKILL');
    await first.ended;
    const second = await node.start();
    writeFileSync(`${folder}/go`, '');
    await known(node, 'chef', 1);
    second.signal('SIGKILL');
    await second.ended;
    await node.start();
    await set('kill', '2');
    await known(node, 'chef', 2);
  });

  test('and so it is after a restored snapshot: what was done after that is done again', async () => {
    const node = nodeWith('tr-back', { chef: { on: 'state:back', line: 'true' } });
    await node.start();
    await set('back', '1');
    await known(node, 'chef', 1);
    const file = `${node.folder}/snapshot`;
    await consul.consul('snapshot', 'save', file);
    await set('back', '2');
    await known(node, 'chef', 2);
    await consul.consul('snapshot', 'restore', file);
    await set('back', '2');
    await known(node, 'chef', 3);
  });
});

describe('it ends', () => {
  test('a chain of tasks, each started by the one before, after eight starts', async () => {
    const steps = Array.from({ length: 4 }, (_, i): [string, Step] => [
      `s${i}`,
      { on: `state:chain/${i}`, line: 'true', more: `publish = "chain/${i + 1}=1"` },
    ]);
    const node = nodeWith('tr-chain', Object.fromEntries(steps));
    const running = await node.start();
    // Six starts on other nodes have led here.
    const env = { RUNLOCK_RUN_CAUSE: 'far@node9', RUNLOCK_RUN_DEPTH: '6' };
    await runlock(consul, ['state', 'set', 'chain/0', '1'], { env });
    await running.says(/not starting task s2: too many triggered runs have led to the change/, 20_000);
    expect(steps.map(([name]) => node.ran(name))).toEqual([1, 1, 0, 0]);
    expect((await node.cursor('s2'))?.refused).toMatchObject({ why: 'deep', depth: 9 });
  });

  test('two that start each other past runlock’s sight, by the limit, until an operator resets it', async () => {
    const env = `env.CONSUL_HTTP_ADDR = "${consul.env['CONSUL_HTTP_ADDR'] ?? ''}"\ntriggers_per_hour = 2`;
    // The command takes the causes out of its environment, as sudo does.
    const hiding = (path: string) =>
      `unset RUNLOCK_RUN_CAUSE RUNLOCK_RUN_DEPTH; ${RUNLOCK} state set ${path} $$`;
    const node = nodeWith('tr-bucket', {
      ping: { on: 'state:ball/b', line: hiding('ball/a'), more: env },
      pong: { on: 'state:ball/a', line: hiding('ball/b'), more: env },
    });
    const running = await node.start();
    await set('ball/b', 'first');
    await running.says(/task ping was started too often by changes/, 20_000);
    expect([node.ran('ping'), node.ran('pong')]).toEqual([2, 2]);
    await node.run('reset', 'ping');
    await running.says(/task pong was started too often by changes/, 20_000);
    expect([node.ran('ping'), node.ran('pong')]).toEqual([3, 2]);
  });
});

test('the agent pauses triggers, and a hook of its files is told', async () => {
  const bodies: string[] = [];
  const at = await serve((request, response) => {
    request.on('data', (part: Buffer) => bodies.push(part.toString()));
    request.on('end', () => response.end());
  });
  const node = nodeWith('tr-pause', { chef: { on: 'state:pause', line: 'true' } });
  writeFileSync(`${node.hooks}/chat.toml`, `on = ["state:pause"]\npost = "http://${at}/"\n`, { mode: 0o600 });
  await node.run('pause');
  const running = await node.start();
  await set('pause', '1');
  await running.says(/a change asks for task chef, but the agent is paused/);
  await eventually(() =>
    expect(bodies.map((body) => JSON.parse(body) as object)).toMatchObject([
      { hook: 'chat', node: 'tr-pause' },
    ]),
  );
  expect(node.ran('chef')).toBe(0);
  await node.run('resume');
  await known(node, 'chef', 1);
});
