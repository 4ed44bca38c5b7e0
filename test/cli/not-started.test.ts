// A file that can't be run, or that a shell runs: the same exit code as bash's, in both programs, and one line that says why.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { IS_BINARY } from '../support/program.ts';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const agent = useAgent();

const exec = (...command: string[]) => groupOf(agent).words('web01', '--', ...command);

/** An executable file of the folder. */
function file(folder: string, name: string, text: string | Buffer, mode = 0o755): string {
  writeFileSync(`${folder}/${name}`, text);
  chmodSync(`${folder}/${name}`, mode);
  return `${folder}/${name}`;
}

/** A program of this machine, made one for another by its header (elf(5): e_machine, EM_S390). */
function foreign(): Buffer {
  const program = readFileSync('/bin/true');
  program.writeUInt16LE(22, 18);
  return program;
}

/** It has as many program headers as no file of its size. */
function broken(): Buffer {
  const program = readFileSync('/bin/true').subarray(0, 4096);
  program.writeUInt16LE(0xffff, 56);
  return program;
}

type Make = (folder: string) => string;
/** Each makes the file, and says what runs it. */
const cases: readonly [string, Make, number, RegExp][] = [
  ['there is none', (at) => `${at}/none`, 127, /: no such file; correct its path$/],
  ['its name is nowhere in PATH', () => 'no-such-program', 127, /: not found in PATH; /],
  [
    'it is not executable',
    (at) => file(at, 'plain', 'exit 0\n', 0o644),
    126,
    /may not execute it; set its x/,
  ],
  ['it is a folder', (at) => at, 126, /: it is a folder; name a program$/],
  [
    'a part of its path is a file',
    (at) => `${file(at, 'part', '')}/foo`,
    126,
    /part of its path is not a folder; /,
  ],
  ['its path ends with a slash', () => '/bin/true/', 126, /part of its path is not a folder; /],
  [
    'its links lead in a circle',
    (at) => {
      symlinkSync('loop', `${at}/loop`);
      return `${at}/loop`;
    },
    126,
    /too many symbolic links in its path, or a loop of links; /,
  ],
  ['its name is too long', (at) => `${at}/${'x'.repeat(300)}`, 126, /path is too long for this system; /],
  ['its interpreter is a folder', (at) => file(at, 'x', `#!${at}\n`), 126, /may not execute it or its inter/],
  [
    'its interpreter is not executable',
    (at) => file(at, 'x', '#!/etc/passwd\n'),
    126,
    /execute it or its inter/,
  ],
  [
    'its interpreter’s path has a file in it',
    (at) => file(at, 'x', '#!/etc/passwd/x\n'),
    126,
    /interpreter's path/,
  ],
  [
    'its interpreter is a link to itself',
    (at) => {
      symlinkSync('loop', `${at}/loop`);
      return file(at, 'x', `#!${at}/loop\n`);
    },
    126,
    /its symbolic links form a loop; /,
  ],
  [
    'it is a program for another machine',
    (at) => file(at, 'x', foreign()),
    126,
    /does not know its format; /,
  ],
  ['it is a program that is cut off', (at) => file(at, 'x', broken()), 126, /does not know its format; /],
  [
    'it is a text with a zero byte in its first line',
    (at) => file(at, 'x', `touch ${at}/ran\0\ntouch ${at}/ran\n`),
    126,
    /does not know its format; rebuild it for this machine$/,
  ],
];

describe('can not be run, and bash says it with the same exit code', () => {
  test.each(cases)('%s', async (_, make, status, words) => {
    const { folder } = stage();
    const command = make(folder);
    const { status: bash } = spawnSync('bash', ['-c', '"$0"', command], { stdio: 'ignore', timeout: 10_000 });
    const on = groupOf(agent);
    const run = await on.exec('web01', '--', command);
    expect({ status: run.status, bash }).toEqual({ status, bash: status });
    expect(run.stderr).toMatch(/^runlock: cannot run [^\n]+\n$/);
    expect(run.stderr.trimEnd()).toMatch(words);
    expect(existsSync(`${folder}/ran`)).toBe(false);
    expect(await on.claim()).toBeUndefined();
  });

  test('nor through what has it ignore signals', async () => {
    const { folder } = stage();
    for (const [, make] of cases.slice(-3)) {
      const run = await runlock(agent, exec(make(folder)), { through: ['env', '--ignore-signal=HUP'] });
      expect(run).toMatchObject({
        status: 126,
        stderr: expect.stringMatching(/does not know its format/) as string,
      });
      expect(existsSync(`${folder}/ran`)).toBe(false);
    }
  });
});

test.each([
  ['a text without #!', 'exit 3\n', 3],
  ['a text with a zero byte after its first line', 'exit 3\n\0\n', 3],
  ['an empty file', '', 0],
])('%s is a script for sh, as it is for bash', async (_, text, status) => {
  const { folder } = stage();
  const script = file(folder, 'script', text);
  expect(spawnSync('bash', ['-c', '"$0"', script], { stdio: 'ignore' }).status).toBe(status);
  expect((await runlock(agent, exec(script))).status).toBe(status);
});

describe('a descriptor of the caller’s beyond the limit of open files', () => {
  /** Below bash, which first opens 300, and then sets the limit. */
  function under(limit: string, script: string) {
    const opens = `exec 300</etc/passwd; ulimit ${limit}; "$@"; exit $?`;
    return runlock(agent, exec('sh', '-c', script), { through: ['bash', '-c', opens, 'bash'] });
  }

  test('the soft one: the command has both', async () => {
    // The limit comes a moment after its start.
    const script =
      'for i in $(seq 500); do [ "$(ulimit -Sn)" != 256 ] || break; sleep 0.01; done; ulimit -Sn; readlink /proc/self/fd/300';
    expect(await under('-Sn 256', script)).toEqual({ status: 0, stdout: '256\n/etc/passwd\n', stderr: '' });
  });

  test('the hard one: is passed on (npm’s package), or is what runlock names', async () => {
    const { status, stdout, stderr } = await under('-n 256', 'readlink /proc/self/fd/300');
    if (!IS_BINARY) {
      expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: '/etc/passwd\n', stderr: '' });
      return;
    }
    expect(stderr).toMatch(
      /^runlock: cannot run \/\S+: descriptor 300, which runlock's caller opened, leaves no room below the limit of 256 open files; close it \(300>&-\), or raise the limit \(ulimit -n, LimitNOFILE=\)\n$/,
    );
    expect(status).toBe(126);
  });
});
