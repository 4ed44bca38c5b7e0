/** This host, as the rest of the program sees it: its boot, its processes, and what runs wrote down of themselves. */
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import type { Emit } from '../events/events.ts';
import type { Host } from '../platform/deps.ts';
import { machineOf } from '../platform/machine.ts';
import { requireProc } from '../platform/proc.ts';
import { liveStartTime, startTime } from './process-tree.ts';
import { openRunFiles } from './run-file.ts';
import type { RunFile, RunFiles } from './run-file.ts';
import { runFolders } from './run-folders.ts';
import { findSurvivors, fromOtherUser } from './survivors.ts';

/** What is needed of the global `process`. */
interface Own {
  readonly pid: number;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly geteuid?: () => number;
  kill(pid: number, signal: 0): true;
}

export function thisHost(own: Own): { readonly host: Host; readonly runFiles: (emit: Emit) => RunFiles } {
  let placed: ReturnType<Host['place']> | undefined;
  const uid = () => own.geteuid?.() ?? 0;
  const runFiles = (emit: Emit) =>
    openRunFiles({ folders: runFolders(uid(), own.env['XDG_RUNTIME_DIR']), uid: uid(), emit });

  /** Of another user's run root reads what that user wrote down. */
  function readRunFile(id: string, emit: Emit, other = uid()): RunFile | undefined {
    if (other === uid() || uid() !== 0) return runFiles(emit).read(id);
    const file = openRunFiles({ folders: runFolders(other, undefined), uid: other, emit }).read(id);
    return file && fromOtherUser(file);
  }

  function hidden(pid: number): boolean {
    if (startTime(pid) !== undefined) return false;
    try {
      own.kill(pid, 0);
      return true;
    } catch (error) {
      return error instanceof Error && 'code' in error && error.code === 'EPERM';
    }
  }

  const host: Host = {
    self: () => ({
      pid: own.pid,
      startTime: startTime(own.pid) ?? '',
      bootId: host.bootId,
      ...(own.geteuid && { uid: own.geteuid() }),
    }),
    place: () => (placed ??= findPlace()),
    get bootId() {
      // Whoever asks for processes must not hear of another namespace's.
      requireProc(own.pid);
      const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
      return [boot, readlinkSync('/proc/self/ns/pid'), ...timeNamespace()].join(' ');
    },
    startTime: liveStartTime,
    hidden,
    survivors: (id, emit, user) => findSurvivors(id, readRunFile(id, emit, user), host.bootId),
  };
  return { host, runFiles };
}

async function findPlace() {
  const machine = await machineOf();
  return { host: hostname(), ...(machine !== undefined && { machine }) };
}

/** Start times count from a boot that each time namespace may shift. Before Linux 5.6 there is none. */
function timeNamespace(): readonly string[] {
  try {
    return [readlinkSync('/proc/self/ns/time')];
  } catch {
    return [];
  }
}
