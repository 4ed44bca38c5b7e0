// Words that can't be given to a command as they are; and the folder that it starts in, whatever became of it.
import { rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { eventually } from '../support/processes.ts';
import { RUNLOCK, clean } from '../support/program.ts';
import type { Result } from '../support/program.ts';
import { startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const agent = useAgent();

/** Runs a shell's text with runlock for `$1` and a folder of its own for `$2`. */
async function shell(text: string): Promise<Result> {
  const { folder } = stage();
  // To root no folder is closed, unless it has no capabilities.
  const asAnybody = process.getuid?.() === 0 ? ['setpriv', '--bounding-set=-all', '--inh-caps=-all'] : [];
  const words = [...asAnybody, 'sh', '-c', text, 'sh', RUNLOCK, folder];
  const options = { env: { ...clean, ...agent.env }, extendEnv: false, stripFinalNewline: false } as const;
  const { exitCode = -1, stdout, stderr } = await execa('env', words, { ...options, reject: false });
  return { status: exitCode, stdout, stderr };
}

const complaint = (status: number, words: string) => ({
  status,
  stdout: '',
  stderr: expect.stringMatching(new RegExp(`^runlock: [^\\n]*${words}[^\\n]*\\n$`)) as string,
});

describe('words that are not UTF-8 are refused, instead of reaching the command as others', () => {
  test.each([
    [
      'an argument',
      `exec "$1" exec -g words -- printf %s ä "$(printf 'b\\344')"`,
      'argument 3 of the command',
    ],
    ['a name', `exec "$1" exec -g words -- "$(printf 'b\\344')" x`, "the command's name"],
  ])('%s', async (_name, text, which) => {
    expect(await shell(text)).toEqual(complaint(64, `${which} is not UTF-8`));
    expect(await agent.kv.keys('runlock/words/')).toEqual([]);
  });

  test('a variable is named, by one line, and the command is run all the same', async () => {
    const set = `export ODD="$(printf 'b\\344')" EVEN='ä \uFFFD'`;
    const said = await shell(`${set}; exec "$1" exec -g variables -- sh -c 'printf %s "$EVEN"'`);
    expect(said).toEqual({
      ...complaint(0, 'environment variable ODD is not UTF-8'),
      stdout: 'ä \uFFFD',
    });
  });

  test('the character that stands for such bytes, and all of UTF-8, arrive', async () => {
    const { status, stdout } = await shell(`exec "$1" exec -g arrive -- printf %s '\uFFFD ä€😀'`);
    expect({ status, stdout }).toEqual({ status: 0, stdout: '\uFFFD ä€😀' });
  });
});

describe('the command starts in runlock’s own folder', () => {
  test('also where this user may not enter it', async () => {
    const said = await shell(
      'cd "$2" && chmod 600 . && "$1" exec -g closed -- echo here; s=$?; chmod 700 "$2"; exit $s',
    );
    expect(said).toEqual({ status: 0, stdout: 'here\n', stderr: '' });
  });

  test('also where its name is not UTF-8', async () => {
    const said = await shell(
      `cd "$2" && mkdir "$(printf '\\344')" && cd "$(printf '\\344')" && "$1" exec -g named -- sh -c 'basename "$PWD" | od -An -tx1'`,
    );
    expect(said).toEqual({ status: 0, stdout: ' e4 0a\n', stderr: '' });
  });

  test('also where it was deleted while runlock waited', async () => {
    const cwd = join(stage().folder, 'gone');
    await shell(`mkdir '${cwd}'`);
    await shell('exec "$1" exec -g gone --node web01 -- false');
    const args = ['exec', '-g', 'gone', '--node', 'web02', '--', 'readlink', '/proc/self/cwd'];
    const run = startRunlock(agent, args, { cwd });
    await eventually(async () => expect(await agent.kv.keys('runlock/gone/.queue/')).toHaveLength(1));
    rmdirSync(cwd);
    await shell('exec "$1" release gone --owner web01');
    expect(await run.ended).toEqual({ status: 0, stdout: `${cwd} (deleted)\n`, stderr: '' });
    expect(await agent.kv.get('runlock/gone/.slot/0/owner')).toBeUndefined();
  });
});
