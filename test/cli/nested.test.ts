// A runlock inside the command of another one: when the outer run is ended, the inner one gives its own slot back.
import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { openRunFiles } from '../../src/process/run-file.ts';
import { runFolders } from '../../src/process/run-folders.ts';
import { WITHOUT_CGROUP, whyNoCell } from '../support/kernel-count.ts';
import { useAgent } from '../support/use-agent.ts';
import { eventually, guardOf, isAlive, untilGone } from '../support/processes.ts';
import { groupOf } from '../support/group.ts';
import { RUNLOCK } from '../support/program.ts';
import { ownStage } from '../support/own-stage.ts';
import type { OwnStage } from '../support/own-stage.ts';
import { startInTerminal } from '../support/terminal.ts';

const agent = useAgent();

const uid = process.geteuid?.() ?? 0;
const runFiles = openRunFiles({
  ...{ uid, folders: runFolders(uid, process.env['XDG_RUNTIME_DIR']), emit: () => undefined },
});

interface Pids {
  readonly outer: number;
  readonly inner: number;
  readonly command: number;
  readonly beside: number;
  readonly guards: readonly number[];
}

/** An outer run, in it an inner one, and in that a command that ignores TERM; and beside the inner one a process that does. */
function nest(here: OwnStage) {
  const [outer, inner] = ['outer', 'inner'].map((name) => `nested/${name}-${randomUUID()}`);
  const { folder } = here;
  const deaf = `trap "" TERM; echo $$ >"${folder}/$0.pid"; while :; do sleep 0.1; done`;
  const exec = (group: string | undefined, killAfter: string) =>
    [RUNLOCK, 'exec', '-g', group ?? '', '--node', 'web01', '--kill-after', killAfter, '--'] as const;
  const script = `sh -c '${deaf}' beside & "$@"; echo $? >"${folder}/inner.status"; wait`;
  // Left to itself the inner one would take its time.
  const args = ['sh', '-c', script, 'sh', ...exec(inner, '60s'), 'sh', '-c', deaf, 'command'];
  const [, ...words] = exec(outer, '500ms');
  const pidOf = (group: string | undefined) =>
    eventually(() => {
      const file = runFiles
        .list()
        .find(({ groups, command }) => command && groups.includes(`runlock/${group}`));
      if (!file) throw new Error(`${group} has not started`);
      return file.runlock.pid;
    });
  return {
    words: [...words, ...args],
    /** Resolves when all are there: their pids. */
    started: async (): Promise<Pids> => {
      const all = {
        ...{ outer: await pidOf(outer), inner: await pidOf(inner) },
        ...{ command: await here.pid('command'), beside: await here.pid('beside') },
      };
      return { ...all, guards: [guardOf(all.outer), guardOf(all.inner)] };
    },
    /** The inner run ended in its own way, and nothing of either is left. */
    expectGivenBack: async ({ guards, ...pids }: Pids, outcomes = /^interrupted$/) => {
      await Promise.all([...Object.values(pids), ...guards].map((pid) => untilGone(pid)));
      const of = groupOf(agent, inner);
      const record = await of.lastRun('web01');
      expect(record).toMatchObject({ exitCode: 137, outcome: expect.stringMatching(outcomes) as string });
      // A run that was ended half-way keeps its claim, as a failed one does.
      expect(await of.claim()).toMatchObject({ state: record?.['outcome'] });
      expect(await of.lockedBy()).toBeUndefined();
      expect(await of.keys('.node/')).toEqual([]);
      const names = runFiles.list().flatMap(({ groups }) => groups);
      expect(names).not.toContain(`runlock/${inner}`);
    },
  };
}

const isRoot = uid === 0;
const places: [string, readonly string[]][] = [
  ...(whyNoCell === undefined ? ([['in a cgroup', []]] as [string, string[]][]) : []),
  ...(isRoot ? ([['without a cgroup', WITHOUT_CGROUP]] as [string, readonly string[]][]) : []),
];

test.concurrent.each(places)(
  'TERM to the outer run, %s: the inner command is killed, its slot given back',
  async (_, through) => {
    using here = ownStage();
    const { words, started, expectGivenBack } = nest(here);
    const run = here.start(agent, words, { through });
    const all = await started();
    run.signal('SIGTERM');
    await run.ended;
    expect(isAlive(all.inner)).toBe(false);
    await expectGivenBack(all);
  },
);

test.concurrent.each(places)(
  'SIGKILL of the outer run, %s: the inner command is killed, its slot given back',
  async (_, through) => {
    using here = ownStage();
    const { words, started, expectGivenBack } = nest(here);
    const run = here.start(agent, words, { through });
    const all = await started();
    run.signal('SIGKILL');
    // Half a second after TERM comes KILL: on a busy host it can hear of its command's end first.
    await expectGivenBack(all, /^(?:interrupted|failed)$/);
  },
);

test('TERM to an outer run in a terminal, which both share: the inner one gives its slot back', async () => {
  using here = ownStage();
  const { words, started, expectGivenBack } = nest(here);
  const run = startInTerminal(agent, words);
  const all = await started();
  process.kill(all.outer, 'SIGTERM');
  await run.ended;
  await expectGivenBack(all);
});

test.concurrent('TERM to the outer run while the inner one waits: that leaves the queue', async () => {
  using here = ownStage();
  const group = `nested/waits-${randomUUID()}`;
  const of = groupOf(agent, group);
  const script = `echo $$ >${here.folder}/holder.pid; exec sleep 300`;
  here.start(agent, of.words('web02', '--', 'sh', '-c', script));
  await here.pid('holder');
  const inner = [RUNLOCK, ...of.words('web01', '--', 'true')];
  const outer = here.start(agent, groupOf(agent, `${group}/outer`).words('web01', '--', ...inner));
  await of.waiting();
  outer.signal('SIGTERM');
  expect((await outer.ended).status).toBe(143);
  expect(await of.tickets()).toEqual([]);
});

test.concurrent('an inner runlock that does not end is killed in the end', async () => {
  using here = ownStage();
  const { words, started } = nest(here);
  const run = here.start(agent, words);
  const all = await started();
  run.signal('SIGTERM');
  // It can't hear what it is told from here on, nor that its command was killed.
  const stopping = setInterval(() => isAlive(all.inner) && process.kill(all.inner, 'SIGSTOP'), 5);
  try {
    await run.ended;
  } finally {
    clearInterval(stopping);
  }
  await Promise.all([all.inner, all.command, ...all.guards].map((pid) => untilGone(pid)));
});
