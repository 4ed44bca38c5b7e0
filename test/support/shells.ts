// What a shell offers on the Tab key: the real bash, zsh and fish, with the script that `runlock completion` prints.
import { spawn } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { execa } from 'execa';
import { onTestFinished } from 'vitest';
import { startTime } from '../../src/process/process-tree.ts';
import { end, eventually } from './processes.ts';
import { NO_CONFIG, RUNLOCK } from './program.ts';
import { fish, zsh } from './provision.ts';
import { stage } from './stage.ts';

export interface Shell {
  /** What can stand in place of the line's last word, sorted; of `--hold=` what comes behind the sign. */
  offers(line: string): Promise<string[]>;
  /** Where it is. */
  readonly folder: string;
}

type Env = Readonly<Record<string, string>>;

/** Each is started in an empty folder, for one test. */
export const shells: Readonly<Record<'bash' | 'zsh' | 'fish', (env: Env) => Promise<Shell>>> = {
  bash: (env) => startInTerminal(['bash', '--norc', '--noprofile', '-i'], BASH, env),
  zsh: async (env) => startInTerminal([await zsh(), '-i'], ZSH, env),
  fish: startFish,
};

// Both have a key that writes every candidate into the line, and one that shows the line and empties it.
const INSERT = '\x18i';
const SHOW = '\x18s';

const BASH = `
source <(runlock completion bash)
show() { printf '<<%s>>\\n' "$READLINE_LINE"; READLINE_LINE=; READLINE_POINT=0; }
bind '"\\C-xi": insert-completions'
bind -x '"\\C-xs": show'
`;

const ZSH = `
autoload -Uz compinit && compinit -u -D
source <(runlock completion zsh)
zstyle ':completion:*' completer _all_matches _complete
zstyle ':completion:*' insert true
show() { print -r -- "<<$BUFFER>>"; BUFFER= }
zle -N show
bindkey '^Xi' complete-word
bindkey '^Xs' show
`;

/** Only this test's runlock is called so, and no file of the user's is read. */
function surroundings(given: Env): { folder: string; env: Env } {
  const { folder } = stage();
  const bin = join(folder, '.bin');
  mkdirSync(bin);
  symlinkSync(RUNLOCK, join(bin, 'runlock'));
  const PATH = [bin, dirname(process.execPath), process.env['PATH'] ?? ''].join(delimiter);
  // A shell that keeps a history writes it when its terminal goes, while the folder is being removed.
  const shell = { HOME: folder, HISTFILE: '', TERM: 'xterm', LC_ALL: 'C.UTF-8' };
  return { folder, env: { PATH, ...shell, ...NO_CONFIG, ...given } };
}

async function startInTerminal(command: readonly string[], setup: string, given: Env): Promise<Shell> {
  const { folder, env } = surroundings(given);
  writeFileSync(join(folder, '.setup'), `${setup}\necho is-ready\n`);
  const child = spawn(
    'script',
    ['--quiet', '--return', '--flush', '--command', `exec ${command.join(' ')}`, '/dev/null'],
    { cwd: folder, env: { ...env, SHELL: '/bin/sh' }, stdio: ['pipe', 'pipe', 'inherit'] },
  );
  let screen = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (screen += text));
  child.stdin.on('error', () => undefined);
  const pid = child.pid ?? 0;
  const born = startTime(pid);
  onTestFinished(() => {
    if (startTime(pid) === born) end(pid);
  });
  const find = (pattern: RegExp) =>
    eventually(() => {
      const [, found] = pattern.exec(screen) ?? [];
      if (found === undefined) throw new Error(`the terminal has not shown ${pattern}, but: ${screen}`);
      return found;
    }, 20_000);
  child.stdin.write('. ./.setup\n');
  await find(/(is-ready)/);
  return {
    folder,
    offers: async (line) => {
      screen = '';
      child.stdin.write(`${line}${INSERT}${SHOW}`);
      const shown = await find(/<<(.*?)>>/s);
      const start = line.slice(0, line.lastIndexOf(' ') + 1);
      if (shown === line) return [];
      return words(shown.slice(start.length).split(/\s+/));
    },
  };
}

async function startFish(given: Env): Promise<Shell> {
  const { folder, env } = surroundings(given);
  const command = await fish();
  const text = 'runlock completion fish | source; complete -C $argv[1]';
  return {
    folder,
    offers: async (line) => {
      const { stdout } = await execa(command, ['--no-config', '-c', text, line], {
        cwd: folder,
        env,
        extendEnv: false,
      });
      return words(stdout.split('\n').map((each) => each.split('\t')[0] ?? ''));
    },
  };
}

function words(found: readonly string[]): string[] {
  return found
    .filter((word) => word !== '')
    .map((word) => word.replace(/^--[\w-]+=/, ''))
    .sort();
}
