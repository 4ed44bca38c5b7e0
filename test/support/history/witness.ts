// The command of a test's run: it notes its start, a beat every 50 ms and its end in a file of its own, so that an orphan betrays itself.
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Process, RunTrace } from './history.ts';

/** What the command does while it has the slot. */
export interface Part {
  /** How many beats of 50 ms it runs; until it is told unless given. */
  readonly beats?: number;
  /** Its exit code after that; 0 unless given. */
  readonly exitCode?: number;
  /** All of it ignores TERM. */
  readonly deaf?: boolean;
  /** Its child is in a session of its own, and lives until the command is told to end. */
  readonly grandchild?: boolean;
  /** It leaves a daemon in a session of its own, which nobody tells to end. */
  readonly daemon?: boolean;
}

// Pauses by a builtin: of a thousand beats a second, each with a sleep(1) of its own, the machine would be busy.
const SCRIPT = `#!/bin/bash
# role, beats (0: until told), exit code, and how it behaves
role=$1 beats=$2 code=$3
shift 3
folder=\${0%/*}
file=$folder/$RUNLOCK_RUN_ID.$role.$$.events
told=$folder/$RUNLOCK_RUN_NODE.told
exec 9<>"$folder/never"
note() { read -r up _ </proc/uptime; echo "$1 $up $2" >>"$file"; }
for word; do
  case $word in
    deaf) trap '' TERM ;;
    grandchild) setsid bash "$0" grandchild 0 0 $(case " $* " in *' deaf '*) echo deaf ;; esac) & ;;
    daemon) setsid bash "$0" daemon 0 0 & ;;
  esac
done
note start "$RUNLOCK_RUN_NODE $RUNLOCK_RUN_SLOT $RUNLOCK_FENCING_TOKEN $RUNLOCK_RUN_GROUP"
while :; do
  [ $role != daemon ] && [ -e "$told" ] && { read -r code <"$told"; break; }
  read -rt 0.05 -u 9
  note beat
  beats=$((beats - 1))
  [ $beats -eq 0 ] && break
done
note end "$code"
exit "$code"
`;

const scriptFile = (folder: string) => join(folder, 'witness.sh');

/** Makes `folder` a place where witnesses can run. */
export function prepareWitnesses(folder: string): void {
  writeFileSync(scriptFile(folder), SCRIPT);
  // Nobody ever writes there.
  execFileSync('mkfifo', [join(folder, 'never')]);
}

/** The command and its arguments. */
export function witness(folder: string, part: Part = {}): string[] {
  const words = (['deaf', 'grandchild', 'daemon'] as const).filter((word) => part[word] === true);
  return [
    'bash',
    scriptFile(folder),
    'command',
    String(part.beats ?? 0),
    String(part.exitCode ?? 0),
    ...words,
  ];
}

export const toldFile = (folder: string, node: string) => join(folder, `${node}.told`);

/** Lets the command of a node end. All at once: a witness must not read half of it. */
export function tell(folder: string, node: string, exitCode: number): void {
  const file = toldFile(folder, node);
  writeFileSync(`${file}.new`, `${exitCode}\n`);
  renameSync(`${file}.new`, file);
}

const EVENTS = /^(.+)\.(command|grandchild|daemon)\.(\d+)\.events$/;

/** The runs whose witnesses have begun. */
export function runIds(folder: string): Set<string> {
  return new Set(readdirSync(folder).flatMap((name) => EVENTS.exec(name)?.[1] ?? []));
}

/** Reads what the witnesses of all runs in `group` have noted so far; of all runs, in the first of their groups, unless given. */
export function readRuns(folder: string, group?: string): RunTrace[] {
  const runs = new Map<string, RunTrace>();
  for (const name of readdirSync(folder)) {
    const [, run, role, pid] = EVENTS.exec(name) ?? [];
    if (run === undefined) continue;
    // A line that is being written does not count yet.
    const lines = readFileSync(join(folder, name), 'utf8').split('\n').slice(0, -1);
    const [start, ...rest] = lines.map((line) => line.split(' '));
    if (start?.[0] !== 'start') continue;
    const [, , node = '', slots = '', tokens = '', groups = ''] = start;
    const at = group === undefined || groups === '' ? 0 : groups.split(',').indexOf(group);
    if (at === -1) continue;
    const [slot, token] = [slots.split(',')[at], tokens.split(',')[at]];
    const last = rest.at(-1) ?? start;
    const process: Process = {
      role: role as Process['role'],
      pid: Number(pid),
      startMs: Number(start[1]) * 1_000,
      lastMs: Number(last[1]) * 1_000,
      ...(last[0] === 'end' && { exitCode: Number(last[2]) }),
    };
    const own = { run, node, slot: Number(slot), token: Number(token), processes: [process] };
    const known = runs.get(run);
    runs.set(run, known ? merge(known, own) : own);
  }
  return [...runs.values()].sort((a, b) => a.token - b.token);
}

/** What is held and asked for again is the same run: its later command has a token of its own. */
function merge(one: RunTrace, other: RunTrace): RunTrace {
  const processes = [...one.processes, ...other.processes].sort((a, b) => a.startMs - b.startMs);
  if (one.token === other.token) return { ...one, processes };
  const [earlier, later] = one.processes[0] === processes[0] ? [one, other] : [other, one];
  const before = [...(earlier.before ?? []), earlier.token, ...(later.before ?? [])];
  return { ...later, processes, before };
}
