// The real `puppet apply` under the lock, and whatever else a command line can carry.
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { eventually, isAlive } from '../support/processes.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { RUNLOCK } from '../support/program.ts';
import { processGroup, runPlain, toolbox, treeOf, whoLives } from '../support/tools.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

const words = (group: string, node = 'web01') => on(group).words(node);

const succeeding = [
  { code: 0, what: 'nothing to do', args: ['--detailed-exitcodes'], manifest: 'notice("same")' },
  { code: 2, what: 'changes', args: ['--detailed-exitcodes'], manifest: 'notify { "new": }' },
  { code: 2, what: 'changes, and -tv', args: ['-tv'], manifest: 'notify { "new": }' },
];

test.each(succeeding)('puppet apply with $what: $code arrives, and its claim goes', async (row) => {
  const { env, puppetApply } = toolbox();
  const group = `good${row.args.join('')}-${row.code}`;
  const command = await puppetApply(...row.args, '-e', row.manifest);
  expect((await runlock(agent, [...words(group), '--', ...command], { env })).status).toBe(row.code);
  expect(await on(group).claim()).toBeUndefined();
  expect(await on(group).lastRun('web01')).toMatchObject({ outcome: 'succeeded', exitCode: row.code });
});

const failing = [
  { code: 4, what: 'failures', args: ['--detailed-exitcodes'], manifest: 'exec { "/bin/false": }' },
  {
    code: 6,
    what: 'changes and failures',
    args: ['--detailed-exitcodes'],
    manifest: 'exec { "/bin/true": } exec { "/bin/false": }',
  },
  { code: 1, what: 'a syntax error', args: [], manifest: 'notify {' },
];

test.each(failing)('puppet apply with $what: $code arrives, and its claim stays with it', async (row) => {
  const { env, puppetApply } = toolbox();
  const group = `bad-${row.code}`;
  const command = await puppetApply(...row.args, '-e', row.manifest);
  expect((await runlock(agent, [...words(group), '--', ...command], { env })).status).toBe(row.code);
  expect(await on(group).claim()).toMatchObject({ state: 'failed', node: 'web01', exitCode: row.code });
});

test('a manifest from stdin is applied', async () => {
  const { env, puppetApply } = toolbox();
  const run = await runlock(agent, [...words('stdin'), '--', ...(await puppetApply())], {
    env,
    input: 'notice("read from stdin")',
  });
  expect(run.status).toBe(0);
  expect(run.stdout).toContain('read from stdin');
});

test('every argument arrives byte for byte, no shell in between', async () => {
  const { write } = toolbox();
  const print = write('print-arguments', '#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done\n', 0o755);
  const args = [
    '',
    ' two  spaces ',
    `it's "quoted" \\ \`id\``,
    '$HOME $(id) ${x}',
    '*',
    '~',
    'one\ntwo\r\n\t',
    '--',
    '--group',
    '-h',
    '--version',
    'a=b;c&d|e>f',
    'Größe 容量 \u{1f512}',
    '\x1b[31m\x07',
    '',
  ];
  const run = await runPlain([RUNLOCK, ...words('words'), '--', print, ...args], { env: { ...agent.env } });
  expect(run.stdout.toString().split('\0').slice(0, -1)).toEqual(args);
});

test("stdin and stdout are the command's own, byte for byte", async () => {
  const { folder } = toolbox();
  const bytes = randomBytes(1_000_000);
  const stdin = join(folder, 'bytes');
  writeFileSync(stdin, bytes);
  const run = await runPlain([RUNLOCK, ...words('bytes'), '--', 'cat'], { env: { ...agent.env }, stdin });
  expect(run).toMatchObject({ status: 0, stderr: Buffer.alloc(0) });
  expect(run.stdout.equals(bytes)).toBe(true);
});

test("TERM ends puppet's exec child too, in a group of its own; only then the next run starts", async () => {
  const { env, folder, pid, puppetApply } = toolbox();
  const script = `echo $$ >${folder}/task.pid; exec sleep 300`;
  const manifest = `exec { 'long': command => "/bin/sh -c '${script.replace('$$', '\\$\\$')}'", timeout => 0 }`;
  const command = await puppetApply('-e', manifest);
  const run = startRunlock(
    agent,
    [...words('term'), '--release-on-signal', '--kill-after', '10m', '--', ...command],
    { env },
  );
  const task = await pid('task');
  const tree = await treeOf(agent, 'term');
  expect(tree).toContain(task);
  expect(new Set(tree.map(processGroup)).size).toBeGreaterThan(1);
  const next = startRunlock(agent, [...words('term', 'web02'), '--', ...whoLives(tree)]);
  await eventually(async () => expect(await agent.kv.keys('runlock/term/.queue/')).toHaveLength(1));
  run.signal('SIGTERM');
  expect((await run.ended).status).toBe(1);
  expect(await next.ended).toMatchObject({ status: 0, stdout: '' });
  expect(tree.filter(isAlive)).toEqual([]);
  expect(await on('term').lastRun('web01')).toMatchObject({ outcome: 'interrupted', exitCode: 1 });
});
