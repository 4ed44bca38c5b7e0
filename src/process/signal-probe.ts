import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';

import type { Clock } from '../platform/deps.ts';

/** Tells whether a signal that runlock got went to its whole process group or to runlock alone. */
export interface SignalProbe {
  pid(): number | undefined;
  /** Whether the process group got `signal` too. Answers one question at a time, each within about half a second. */
  groupHad(signal: NodeJS.Signals): Promise<boolean>;
  stop(): void;
}

interface Report {
  readonly signal: string;
  readonly atMs: number;
}

// Answers each line with `pong`, and prints the name of each signal that it gets. The script catches signals instead of
// dying: QUIT would leave a core file, and a second signal could come before a new probe has started. Builtins only.
const script = `
[ -z "$home" ] || { echo 0 >"$home"; } 2>/dev/null
for name in INT QUIT HUP TERM USR1 USR2 TSTP TTIN TTOU; do trap "echo SIG$name; caught=1" $name; done
while caught=; read -r line || [ -n "$caught" ]; do [ -z "$line" ] || echo pong; line=; done
`;

/** A sender that signals process by process (systemd does) gets this long to reach the probe as well. */
const graceMs = 100;
const answerMs = 400;
/** A report older than this belongs to a signal that runlock itself did not get. */
const freshMs = 1000;

export interface ProbeOptions {
  /**
   * `cgroup.procs` of the cgroup that the probe moves to, since runlock may start the probe from inside the command's.
   */
  readonly home?: string;
}

/** Starts a probe in runlock's own process group. A probe that a signal kills is replaced until `stop`. */
export function startSignalProbe(clock: Clock, { home = '' }: ProbeOptions = {}): SignalProbe {
  let reports: Report[] = [];
  let unanswered = 0;
  let isStopped = false;
  let waiting = new AbortController();
  let turn: Promise<unknown> = Promise.resolve();
  let child = start();

  function hear(word: string) {
    if (word === 'pong') unanswered -= 1;
    else reports.push({ signal: word, atMs: clock.monotonicMs() });
    waiting.abort();
  }

  function start(): ChildProcess {
    unanswered = 0;
    const born = spawnProbe(hear, home);
    born.on('exit', (_code, signal) => {
      if (isStopped || signal === null) return;
      // The signal came before the probe had set its traps.
      hear(signal);
      child = start();
    });
    return born;
  }

  /** Waits until `isDone`, at most `ms`. */
  async function listen(ms: number, isDone: () => boolean): Promise<boolean> {
    const endMs = clock.monotonicMs() + ms;
    for (let leftMs = ms; !isDone(); leftMs = endMs - clock.monotonicMs()) {
      if (leftMs <= 0 || isStopped) return false;
      waiting = new AbortController();
      await clock.sleep(leftMs, { signal: waiting.signal }).catch(() => undefined);
    }
    return true;
  }

  /** Takes the report of `signal` off the list, so that it answers for one signal only. */
  function take(signal: NodeJS.Signals, sinceMs: number): boolean {
    reports = reports.filter((report) => report.atMs >= sinceMs);
    const index = reports.findIndex((report) => report.signal === signal);
    if (index !== -1) reports.splice(index, 1);
    return index !== -1;
  }

  async function ask(signal: NodeJS.Signals, sinceMs: number): Promise<boolean> {
    if (await listen(graceMs, () => take(signal, sinceMs))) return true;
    // The kernel delivers a caught signal before the probe goes on, so a pong without a report means no signal.
    unanswered += 1;
    child.stdin?.write('ping\n');
    await listen(answerMs, () => unanswered <= 0);
    return take(signal, sinceMs);
  }

  return {
    pid: () => child.pid,
    groupHad(signal) {
      const sinceMs = clock.monotonicMs() - freshMs;
      const answer = turn.then(() => ask(signal, sinceMs));
      turn = answer;
      return answer;
    },
    stop() {
      isStopped = true;
      child.stdin?.end();
      child.kill('SIGKILL');
      waiting.abort();
    },
  };
}

function spawnProbe(hear: (word: string) => void, home: string): ChildProcess {
  const child: ChildProcess = spawn('/bin/sh', ['-c', script, 'signal-probe'], {
    env: { home },
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  // Without a probe every signal is passed on: the command may get it twice, which is better than never.
  child.on('error', () => undefined);
  // If no process could be started, there are no streams.
  child.stdin?.on('error', () => undefined);
  child.stdout?.setEncoding('utf8').on('data', (words: string) => {
    for (const word of words.trim().split('\n')) hear(word);
  });
  return child;
}
