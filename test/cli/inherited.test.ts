// What a command gets from whoever called runlock: the same as without runlock.
import { execFileSync } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { RUNLOCK, clean, preloading } from '../support/program.ts';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const agent = useAgent();

const exec = (...more: string[]) => groupOf(agent).words('web01', ...more);

/** What bash prepares, then becomes: `"$@"` is the command with what stands before it. */
async function inBash(before: string, words: readonly string[]): Promise<{ status: number; stdout: string }> {
  const { exitCode = -1, stdout } = await execa('bash', ['-c', `${before}\nexec "$@"`, 'bash', ...words], {
    ...{
      env: { ...clean, ...agent.env },
      extendEnv: false,
      stdin: 'ignore',
      stderr: 'inherit',
      reject: false,
    },
  });
  return { status: exitCode, stdout };
}

const direct = (before: string, command: readonly string[]) => inBash(before, command);
const under = (before: string, command: readonly string[]) =>
  inBash(before, [RUNLOCK, ...exec('--', ...command)]);

describe('descriptors that the caller opened', () => {
  const LIST = ['sh', '-c', 'ls -l /proc/$$/fd'];
  /** Number, and what it stands for without the number of the pipe or socket. */
  const numbers = (list: string) => list.match(/\d+ -> [^:\n]*/g);
  const jobserver = 'mkfifo pipe; exec 5<>pipe; exec 3<pipe 4>pipe 5>&-';
  const sets: Readonly<Record<string, string>> = {
    none: '',
    'a job server on 3 and 4': jobserver,
    'a lock on 9': 'exec 9>lock',
    'process substitution on 63': 'exec 63< <(echo over there)',
    'files on 200 and 1000': 'exec 200>a; exec 1000>b',
    'a pair in a gap, on 17 and 30': 'mkfifo pipe; exec 40<>pipe; exec 17<pipe 30>pipe 40>&-',
    'all at once': `${jobserver}; exec 9>lock; exec 63< <(echo over there); exec 200>a`,
  };

  test.each(Object.entries(sets))('%s: the command has these, and none of runlock', async (_, open) => {
    const { folder } = stage();
    const expected = await direct(`cd ${folder}; ${open}`, LIST);
    execFileSync('sh', ['-c', `rm -f ${folder}/*`]);
    const found = await under(`cd ${folder}; ${open}`, LIST);
    expect(numbers(expected.stdout)).toContain('0 -> /dev/null');
    expect(numbers(found.stdout)).toEqual(numbers(expected.stdout));
  });

  test.each(['closed', 'another file'])(
    'none of a file that runlock had open for a moment when it started: %s by the start',
    async (by) => {
      const { folder } = stage();
      // As a thread of the runtime does, but surely at the first look.
      const hook = `${folder}/hook.cjs`;
      const again =
        by === 'closed' ? '' : `if (openSync('/dev/null') !== fd) throw new Error('not the number');`;
      writeFileSync(
        hook,
        `const { openSync, closeSync } = require('node:fs');
        const fd = openSync('/proc/sys/vm/overcommit_memory');
        setImmediate(() => { closeSync(fd); ${again} });`,
      );
      const expected = await direct(`cd ${folder}`, LIST);
      const variables = Object.entries(preloading(hook)).map(([name, value]) => `export ${name}='${value}'`);
      const found = await under(`cd ${folder}; ${variables.join('; ')}`, LIST);
      expect(numbers(found.stdout)).toEqual(numbers(expected.stdout));
      expect(found.status).toBe(0);
    },
  );

  test('what is in a pipe is read, and a lock is held by the command', async () => {
    const { folder } = stage();
    const open = `cd ${folder}; exec 3< <(echo over there); exec 9>lock; flock -n 9`;
    const script = 'cat <&3; flock -n lock true || echo locked';
    expect(await under(open, ['sh', '-c', script])).toEqual({ status: 0, stdout: 'over there\nlocked' });
  });

  test('make’s own job server takes the command for one of its own', async () => {
    const { folder } = stage();
    const words = [RUNLOCK, ...exec('--', 'make', '-f', 'inner')].join(' ');
    writeFileSync(`${folder}/outer`, `all:\n\t+@${words}\n`);
    writeFileSync(`${folder}/inner`, 'all: a b\na b:\n\t@echo $@\n');
    const env = { ...clean, ...agent.env };
    const options = { cwd: folder, env, extendEnv: false, stdin: 'ignore', all: true } as const;
    const { all: text } = await execa('make', ['-j2', '-f', 'outer'], options);
    expect(text).not.toMatch(/jobserver unavailable/);
    expect(
      text
        .split('\n')
        .filter((line) => /^[ab]$/.test(line))
        .sort(),
    ).toEqual(['a', 'b']);
  });
});

describe('the soft limit of open files', () => {
  const LIMIT = ['sh', '-c', 'ulimit -Sn; ulimit -Hn'];

  test.each([1024, 300])('%d: is the caller’s, and so is the hard one', async (soft) => {
    // bash stays, as the parent that runlock can ask.
    const before = `ulimit -Sn ${soft}; ulimit -Hn 4096; "$@"; exit`;
    expect(await under(before, LIMIT)).toEqual({ status: 0, stdout: `${soft}\n4096` });
  });

  test('that is too low for runlock is given to the command alone, also in a dozen groups', async () => {
    const groups = Array.from({ length: 12 }, (_, n) => ['-g', `inherited/limit/${n}`]).flat();
    const script = 'until [ "$(ulimit -Sn)" = 64 ]; do sleep 0.05; done; ulimit -Hn';
    const words = [RUNLOCK, 'exec', ...groups, '--node', 'web01', '--', 'sh', '-c', script];
    const before = 'ulimit -Sn 64; ulimit -Hn 4096; "$@"; exit';
    expect(await inBash(before, words)).toEqual({ status: 0, stdout: '4096' });
  });
});

describe('a script without #!', () => {
  test.each(['./script', 'script'])('%s is run by sh, as execvp does it', async (name) => {
    const { folder } = stage();
    writeFileSync(`${folder}/script`, 'echo "$0 $# $2"; exit 5\n');
    chmodSync(`${folder}/script`, 0o755);
    const env = { PATH: `${folder}:${process.env['PATH'] ?? ''}` };
    const { status, stdout, stderr } = await runlock(agent, exec('--ok-codes', '5', '--', name, 'a', 'b c'), {
      ...{ cwd: folder, env },
    });
    const file = name === 'script' ? `${folder}/script` : name;
    expect({ status, stdout, stderr }).toEqual({ status: 5, stdout: `${file} 2 b c\n`, stderr: '' });
  });
});
