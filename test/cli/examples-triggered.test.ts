// Real ansible-pull and puppet as tasks of a node, started by a state that changes.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { eventually } from '../support/processes.ts';
import { agentOn } from '../support/runlock-agent.ts';
import { runlock } from '../support/runlock.ts';
import { playbook, toolbox } from '../support/tools.ts';
import { useAgent } from '../support/use-agent.ts';

const consul = useAgent({ name: 'node1' });

const toml = (values: Readonly<Record<string, unknown>>) =>
  Object.entries(values)
    .map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`)
    .join('');

test('a state that is set starts ansible-pull from a git repository, and puppet after that', async () => {
  const tools = toolbox();
  const { folder } = tools;
  const [pulled, applied] = [join(folder, 'pulled'), join(folder, 'applied')];
  const site = join(folder, 'site');
  mkdirSync(site);
  const touch = { copy: { dest: pulled, content: 'pulled' } };
  writeFileSync(join(site, 'local.yml'), playbook([touch]));
  const git = (...words: string[]) =>
    execFileSync('git', ['-C', site, '-c', 'user.name=x', '-c', 'user.email=x@example.com', ...words]);
  git('init', '-q');
  git('add', '.');
  git('commit', '-qm', 'site');
  const [playbookProgram = ''] = await tools.ansiblePlaybook();
  // The program beside it, as the provision's own wrapper starts it.
  const root = dirname(dirname(playbookProgram));
  const pull = ['/usr/bin/python3', join(root, 'usr/bin/ansible-pull')];
  const pullCommand = [
    ...pull,
    '-U',
    `file://${site}`,
    '-d',
    join(folder, 'checkout'),
    '-i',
    'localhost,',
    'local.yml',
  ];
  const manifest = tools.write('site.pp', `file { '${applied}': content => 'applied' }`);
  const puppet = await tools.puppetApply('--detailed-exitcodes', manifest);
  const env = Object.fromEntries(
    Object.entries({
      ...tools.env,
      PYTHONPATH: join(root, 'usr/lib/python3/dist-packages'),
      LC_ALL: 'C.UTF-8',
    }).map(([name, value]) => [`env.${name}`, value]),
  );
  const node = agentOn(consul, 'node1', {
    tasks: {
      'pull.toml': toml({
        command: pullCommand,
        group: 'ex/pull',
        on: ['state:site/revision'],
        publish: ['site/pulled=1'],
        ...env,
      }),
      'puppet.toml': toml({ command: puppet, group: 'ex/puppet', on: ['state:site/pulled'] }),
    },
  });
  await node.start().says(/is ready/);
  await runlock(consul, ['state', 'set', 'site/revision', '1']);
  await eventually(() => {
    const folder = join(node.logs, 'triggers');
    const logs = existsSync(folder) ? readdirSync(folder) : [];
    const said = logs.map((log) => readFileSync(join(folder, log), 'utf8')).join('\n');
    if (!existsSync(applied)) throw new Error(said);
  }, 45_000);
  expect(readFileSync(pulled, 'utf8')).toBe('pulled');
});
