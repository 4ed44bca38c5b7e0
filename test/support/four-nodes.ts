// The four nodes of docs/waiting.md: its commands as they stand, on nodes that are all this machine.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { onTestFinished } from 'vitest';
import { consoleSteps } from './console-blocks.ts';
import type { Agent } from './consul.ts';
import { eventually } from './processes.ts';
import { RUNLOCK, clean } from './program.ts';
import { ansible } from './provision.ts';
import { toolbox } from './tools.ts';

const PLAYBOOKS = resolve(import.meta.dirname, '../../examples/four-nodes');

const page = readFileSync(new URL('../../docs/waiting.md', import.meta.url), 'utf8');

/** Of the page's section. */
export const steps = consoleSteps(/^## Four nodes\n.*?^## /ms.exec(page)?.[0] ?? '');

/** What each node runs, one after another: the first block. */
export const commandsOf = (node: string): readonly string[] =>
  steps.flatMap((step) => (step.block === 0 && step.node === node ? [step.command] : []));

export const NODES = ['mysql', 'django1', 'django2', 'haproxy'] as const;

export type Place = 'before' | 'after';

/** Writes down in $LOG what it is asked; for manage.py, $DATABASE/schema is the record that Django keeps of migrations. */
const standIns = {
  mysql: 'note loaded',
  systemctl: 'note "$1 $2"',
  'manage.py': `
hold() {
  [ -e "$DATABASE/hold-$1" ] || return 0
  echo "$ON" >"$DATABASE/at" && mv "$DATABASE/at" "$DATABASE/at-$1"
  while [ -e "$DATABASE/hold-$1" ]; do sleep 0.05; done
}
note migrates
if [ -e "$DATABASE/broken" ]; then echo 'the migration is broken' >&2; exit 1; fi
hold before
if mkdir "$DATABASE/schema" 2>/dev/null; then note migrated; fi
hold after`,
  // In the place of the real one: what the four playbooks do, without Ansible.
  'ansible-playbook': `
is() { [ "$(runlock state get "$1")" = "$2" ]; }
for playbook; do :; done
case $playbook in
mysql.yml) is db/loaded 1 || exec mysql ;;
migrate.yml) is db/schema 42 || exec "$SHOP/manage.py" migrate ;;
app.yml) exec systemctl restart shop ;;
haproxy.yml) exec systemctl reload haproxy ;;
*) exit 64 ;;
esac`,
};

const script = (text: string) => `#!/bin/sh\nnote() { echo "$ON $*" >>"$LOG"; }\n${text.trimStart()}\n`;

export interface Shell {
  /** Exit status of the last command; 128 and more: a signal. */
  readonly ended: Promise<number>;
  /** What it has written so far, to stdout and stderr. */
  readonly output: () => string;
  readonly says: (pattern: RegExp) => Promise<void>;
  /** SIGKILL to the runlock that it runs now. */
  readonly kill: () => void;
}

/** A shop: a database, and for each node a folder and programs. `prefix`: of its keys; a test's own. */
export async function fourNodes(agent: Agent, tool: 'ansible' | 'stand-in', prefix = 'runlock') {
  const box = toolbox();
  const { folder, env, write } = box;
  for (const path of ['bin', 'database', ...NODES]) mkdirSync(join(folder, path));
  // Runs do not hand their own options on to what they start: each runlock is told.
  write('bin/runlock', `#!/bin/sh\nRUNLOCK_PREFIX=${prefix} exec ${RUNLOCK} "$@"\n`, 0o755);
  for (const [name, text] of Object.entries(standIns)) {
    if (name === 'manage.py') for (const node of NODES) write(join(node, name), script(text), 0o755);
    else if (name !== 'ansible-playbook' || tool === 'stand-in')
      write(join('bin', name), script(text), 0o755);
  }
  const folders = [join(folder, 'bin'), ...(tool === 'ansible' ? [dirname((await ansible()).command)] : [])];
  const environment = (node: string) => ({
    ...{ ...clean, ...agent.env, ...env, PATH: [...folders, process.env['PATH'] ?? ''].join(':') },
    ...{
      RUNLOCK_NODE: node,
      ON: node,
      SHOP: join(folder, node),
      DATABASE: join(folder, 'database'),
      LOG: join(folder, 'log'),
    },
  });
  const file = (name: string) => join(folder, 'database', name);

  /** As a shell on the node runs it. */
  function run(node: string, command: string): Shell {
    const child = spawn('sh', ['-c', command], {
      cwd: PLAYBOOKS,
      env: environment(node),
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (output += text));
    const ended = new Promise<number>((settle) => child.on('close', (code) => settle(code ?? 137)));
    onTestFinished(() => {
      if (child.exitCode === null && child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
      return ended.then(() => undefined);
    });
    const says = (pattern: RegExp) =>
      eventually(() => {
        if (!pattern.test(output)) throw new Error(`${node} has not said ${pattern}, but: ${output}`);
      }, 60_000);
    const kill = () => {
      const pid = child.pid ?? 0;
      process.kill(Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')), 'SIGKILL');
    };
    return { ended, output: () => output, says, kill };
  }

  return {
    box,
    run,
    /** All commands of a node, up to the first that fails. */
    start: (node: string, options = '') =>
      run(node, commandsOf(node).join(' && ').replaceAll('runlock exec', `runlock exec ${options}`)),
    /** What was done, in its order. */
    log: () => (existsSync(join(folder, 'log')) ? readFileSync(join(folder, 'log'), 'utf8') : ''),
    break: () => writeFileSync(file('broken'), ''),
    repair: () => rmSync(file('broken')),
    /** Has migrations stop there; resolves with the node that has come to it. */
    hold: (place: Place) => {
      writeFileSync(file(`hold-${place}`), '');
      return {
        reached: () => eventually(() => readFileSync(file(`at-${place}`), 'utf8').trim(), 60_000),
        go: () => rmSync(file(`hold-${place}`)),
      };
    },
    state: async (path: string) => {
      const pair = await agent.kv.get(`${prefix}/.state/${path}/.value`);
      return pair && (JSON.parse(pair.Value) as { readonly value: string }).value;
    },
  };
}

/** Once all four are done: who migrates, and which application is first, is chance. */
export const DONE =
  /^mysql loaded\n(django[12]) migrates\n\1 migrated\n(?:django1 restart shop\ndjango2|django2 restart shop\ndjango1) restart shop\nhaproxy reload haproxy\n$/;
