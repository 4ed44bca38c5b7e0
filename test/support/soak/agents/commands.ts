// The commands of a soak's nodes: each notes its start, its beats and its end in a file of its own.
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const SCRIPT = `#!/bin/bash
# task, beats of 100 ms, exit code
task=$1 beats=$2 code=$3
folder=\${0%/*}
file=$folder/runs/$RUNLOCK_RUN_ID.$$.events
exec 9<>"$folder/never"
note() { read -r up _ </proc/uptime; echo "$1 $up $2" >>"$file"; }
note start "$task \${RUNLOCK_JOB:--} \${RUNLOCK_RUN_CAUSE:--}"
[ -e "$folder/$task.fail" ] && rm "$folder/$task.fail" && code=7
while [ "$beats" -gt 0 ]; do
  read -rt 0.1 -u 9
  note beat
  beats=$((beats - 1))
done
[ "$code" -eq 194 ] && : >"$folder/wants-reboot"
note end "$code"
exit "$code"
`;

export const scriptFile = (folder: string): string => join(folder, 'work.sh');
export const spoilFile = (folder: string, task: string): string => join(folder, `${task}.fail`);
export const rebootFile = (folder: string): string => join(folder, 'wants-reboot');

export function prepareCommands(folder: string): void {
  writeFileSync(scriptFile(folder), SCRIPT);
  // Nobody ever writes there.
  execFileSync('mkfifo', [join(folder, 'never')]);
}

/** Times are milliseconds since boot. */
export interface Command {
  readonly node: string;
  readonly run: string;
  readonly task: string;
  /** `principal/id` of the job that it is of. */
  readonly job?: string;
  /** Each `task@node`, itself last; none: no change has started it. */
  readonly chain: readonly string[];
  readonly startMs: number;
  readonly lastMs: number;
  /** Absent: it was killed, or still runs. */
  readonly exitCode?: number;
}

export function readCommands(folder: string, node: string): readonly Command[] {
  return readdirSync(join(folder, 'runs')).flatMap((name) => {
    const [, run] = /^(.+)\.\d+\.events$/.exec(name) ?? [];
    const lines = readFileSync(join(folder, 'runs', name), 'utf8')
      .split('\n')
      .slice(0, -1);
    const [start, ...rest] = lines.map((line) => line.split(' '));
    if (run === undefined || start?.[0] !== 'start') return [];
    const [, at, task = '', job = '-', cause = '-'] = start;
    const last = rest.at(-1) ?? start;
    return [
      {
        ...{ node, run, task, chain: cause === '-' ? [] : cause.split(',') },
        ...(job !== '-' && { job }),
        startMs: Number(at) * 1_000,
        lastMs: Number(last[1]) * 1_000,
        ...(last[0] === 'end' && { exitCode: Number(last[2]) }),
      },
    ];
  });
}
