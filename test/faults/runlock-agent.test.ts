// The agent of a node is killed, stopped, updated, or its run is, before, while and after: each request runs once.
import { renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { askFor } from '../support/asked-jobs.ts';
import { end, eventually, isAlive, untilGone } from '../support/processes.ts';
import { RUNLOCK } from '../support/program.ts';
import { agentOn } from '../support/runlock-agent.ts';
import { startRunlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const consul = useAgent({ name: 'node1' });
const LONG = { timeout: 90_000 };

/** Its task notes each of its runs, and works until it is told to end. */
function working(node: string, program?: string) {
  const group = `fa/${node}`;
  const env = { RUNLOCK_REQUESTS: 'trust-everybody' };
  const on = agentOn(consul, node, { env, ...(program !== undefined && { program }) });
  const script = `echo $$ >> ${on.folder}/command.pid; until [ -e ${on.folder}/go ]; do sleep 0.1; done`;
  on.write(
    't.toml',
    `command = ["/bin/sh", "-c", ${JSON.stringify(script)}]\nallow = ["ops"]\ngroup = "${group}"\n`,
  );
  const start = async () => {
    const running = on.start();
    await running.says(/is ready/);
    return running;
  };
  return {
    ...on,
    group,
    start,
    ask: () => askFor(consul, group, { targets: [[node, 0]] }),
    runs: () => on.lines('command.pid').length,
    finish: () => writeFileSync(`${on.folder}/go`, ''),
    owner: async () => {
      const entry = await consul.kv.get(`runlock/${group}/.slot/0/owner`);
      return entry && (JSON.parse(entry.Value) as { pid: number; node: string });
    },
  };
}

describe('the agent', () => {
  test.each(['SIGKILL', 'SIGTERM'] as const)(
    '%s while a run is active: the run goes on, and the next agent runs it no second time',
    LONG,
    async (signal) => {
      const on = working(`k-${signal.toLowerCase()}`);
      const first = await on.start();
      const job = await on.ask();
      await job.becomes('running');
      await on.pid('command');
      first.signal(signal);
      await first.ended;
      const second = await on.start();
      await eventually(async () => expect(await on.shown()).toMatchObject({ pid: second.pid }));
      on.finish();
      await job.becomes('good');
      expect(on.runs()).toBe(1);
      expect(second.stderr()).not.toContain('started a run');
      expect(await on.owner()).toBeUndefined();
    },
  );

  test('SIGKILL, and the run ends before the next agent is there: nothing is left to do', LONG, async () => {
    const on = working('k-after');
    const first = await on.start();
    const job = await on.ask();
    await job.becomes('running');
    first.signal('SIGKILL');
    on.finish();
    await job.becomes('good');
    const second = await on.start();
    await eventually(() => expect(on.lines('state/runs/ops')).toEqual([]));
    second.signal('SIGTERM');
    expect(await second.ended).toMatchObject({ status: 0 });
    expect(on.runs()).toBe(1);
  });

  test('SIGSTOP for a while: its run goes on, and it finds out what became of it', LONG, async () => {
    const on = working('k-stop');
    const agent = await on.start();
    const job = await on.ask();
    await job.becomes('running');
    agent.signal('SIGSTOP');
    on.finish();
    await job.becomes('good');
    const next = await on.ask();
    agent.signal('SIGCONT');
    await next.becomes('good');
    expect(on.runs()).toBe(2);
  });

  test('updated under its feet: the next run is one of the new program', LONG, async () => {
    const on = working('k-update', 'runlock');
    const program = `${on.folder}/runlock`;
    symlinkSync(RUNLOCK, program);
    const agent = await on.start();
    writeFileSync(
      `${program}.sh`,
      `#!/bin/sh\necho "$@" > ${on.folder}/new.pid.txt\nexec ${RUNLOCK} "$@"\n`,
      {
        mode: 0o755,
      },
    );
    renameSync(`${program}.sh`, program);
    const job = await on.ask();
    on.finish();
    await job.becomes('good');
    expect(on.lines('new.pid.txt').join()).toContain(`--job ops/${job.ref.id}`);
    expect(isAlive(agent.pid)).toBe(true);
  });
});

describe('the run of a request', () => {
  test('SIGKILL while its command runs: lost, not run again, and its claim stays', LONG, async () => {
    const on = working('r-kill');
    const agent = await on.start();
    const job = await on.ask();
    await job.becomes('running');
    const command = await on.pid('command');
    end((await on.owner())?.pid ?? 0);
    await untilGone(command);
    expect((await job.becomes('lost')).why).toMatch(/does not know its end/);
    expect(await on.owner()).toMatchObject({ node: 'r-kill' });
    expect(await consul.kv.get(job.pointer())).toBeUndefined();
    expect(on.runs()).toBe(1);
    expect(agent.stderr()).toMatch(/job \S+: lost on this node/);
  });

  test('SIGKILL while it waits for its slot: another one is started, and runs once', LONG, async () => {
    const on = working('r-wait');
    const wait = `until [ -e ${on.folder}/go ]; do sleep 0.1; done`;
    startRunlock(consul, ['exec', '-g', on.group, '--node', 'other', '--', 'sh', '-c', wait]);
    await eventually(async () => expect(await on.owner()).toMatchObject({ node: 'other' }));
    const agent = await on.start();
    const job = await on.ask();
    const first = await eventually(async () => {
      const [ticket] = (await consul.kv.tree(`runlock/${on.group}/.queue/`)).map(({ Value }) => Value);
      return (JSON.parse(ticket ?? '') as { pid: number }).pid;
    });
    end(first);
    await eventually(() => expect(agent.stderr().match(/started a run/g)).toHaveLength(2));
    expect((await job.document())?.state).toMatch(/accepted|waiting/);
    on.finish();
    await job.becomes('good');
    expect(on.runs()).toBe(1);
  });

  test('a restored snapshot that has forgotten it: the disk says how it ended', LONG, async () => {
    const on = working('r-back');
    await on.run('pause');
    const first = await on.start();
    const job = await on.ask();
    const isOfJob = ({ Key }: { Key: string }) => Key.includes(`/${job.ref.id}`);
    const before = (await consul.kv.tree('runlock/')).filter(isOfJob);
    on.finish();
    await on.run('resume');
    await job.becomes('good');
    first.signal('SIGKILL');
    await first.ended;
    await consul.kv.deleteTree(`runlock/${on.group}/.jobs/`);
    for (const { Key, Value } of before) await consul.kv.put(Key, Value);
    expect(await job.document()).toBeUndefined();
    await on.start();
    await job.becomes('good');
    expect(on.runs()).toBe(1);
    expect((await job.look()).tally.value.states).toEqual({ good: 1 });
  });
});
