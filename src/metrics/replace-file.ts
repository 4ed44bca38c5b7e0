/**
 * Replaces a file in another process. If the folder's mount is dead, that process hangs in the kernel for good; a thread
 * would not do, because exit() would wait for it (docs/faults.md).
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';

/** $1: the file; $2: its draft. Prints the old text on stdout and reads the new one from stdin. */
const SCRIPT = `
unfit() { echo "it is not a regular file any more" >&2; exit 1; }
umask 022
if [ -h "$1" ]; then unfit; elif [ -f "$1" ]; then [ ! -r "$1" ] || cat "$1" || :; elif [ -e "$1" ]; then unfit; fi
exec >&-
{ set -C; cat >"$2" && chmod 644 "$2" && { [ ! -d "$1" ] || unfit; } && mv -f "$2" "$1"; } && exit 0
rm -f "$2"
exit 1
`;

/** Reads at most this many bytes of the existing file. */
const OLD_LIMIT = 4_194_304;

export interface Replacement {
  readonly path: string;
  /** In the same folder; must not exist yet. */
  readonly draft: string;
  /** Returns the new text, given the old one, which is empty if it can't be read. */
  readonly text: (old: string) => string;
  readonly limitMs: number;
}

/**
 * Writes the file with mode 0644. Resolves to undefined, or to why it failed, worded as part of a sentence; never
 * rejects.
 */
export function replaceFile({ path, draft, text, limitMs }: Replacement): Promise<string | undefined> {
  return new Promise((resolve) => {
    let child: ChildProcess;
    const env = { LC_ALL: 'C', PATH: '/usr/local/bin:/usr/bin:/bin' };
    try {
      // The paths may be relative, so the process keeps the current folder.
      const files = [path, draft].map((name) => (name.startsWith('-') ? `./${name}` : name));
      child = spawn('/bin/sh', ['-c', SCRIPT, 'sh', ...files], { env, detached: true, stdio: 'pipe' });
    } catch (error) {
      resolve(String(error));
      return;
    }
    const timer = setTimeout(() => {
      // A process that hangs in the kernel ignores this, but runlock does not wait for it.
      child.kill('SIGKILL');
      resolve(`no answer from the file system within ${limitMs / 1000} s; is its mount dead?`);
    }, limitMs);
    const done = (why: string | undefined) => {
      clearTimeout(timer);
      resolve(why);
    };
    const old: Buffer[] = [];
    let length = 0;
    let said = '';
    child.stdout?.on('data', (part: Buffer) => {
      length += part.length;
      if (length <= OLD_LIMIT) old.push(part);
    });
    child.stdout?.on('end', () => child.stdin?.end(text(Buffer.concat(old).toString())));
    child.stdin?.on('error', () => undefined);
    child.stderr?.setEncoding('utf8').on('data', (part: string) => (said += part));
    child.on('error', (error) => done(error.message));
    child.on('close', (status) => done(status === 0 ? undefined : lastLine(said)));
  });
}

/** The last line, without the program's name: `mv: cannot move 'a' to 'b': No space left on device`. */
function lastLine(said: string): string {
  const line = said.trimEnd().split('\n').at(-1) ?? '';
  return line.replace(/^(?:\S+: )?(?:\d+: )?/, '') || 'it ended early';
}
