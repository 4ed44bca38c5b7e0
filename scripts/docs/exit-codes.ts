// Exit codes and what they mean: the one list behind docs/exec.md and the man page.
import {
  EXIT_LOST,
  EXIT_STOPPED,
  EXIT_TIMED_OUT,
  EXIT_UNHEALTHY,
  RunlockError,
  exitStatus,
} from '../../src/errors.ts';
import type { ErrorCode } from '../../src/errors.ts';

const of = (code: ErrorCode) => String(exitStatus(new RunlockError(code, '')));

export interface ExitCode {
  readonly code: string;
  readonly meaning: string;
}

export const exitCodes: readonly ExitCode[] = [
  { code: "the command's", meaning: 'the command ran' },
  { code: of('usage'), meaning: 'wrong usage' },
  { code: of('unreachable'), meaning: 'Consul unreachable' },
  { code: of('bug'), meaning: 'bug in runlock' },
  { code: of('unwritten'), meaning: 'stdout could not be written (a full disk, say)' },
  {
    code: of('busy'),
    meaning:
      'busy: no slot within `--wait`, a condition (`--when`) not met, the group is frozen, the gate of a service is closed, or this node is already running or queued in the group (`-E` changes the code). `release`: the run is waiting, alive, or may still be running, and `--force` was not given; or another session holds the lock of the slot. `forget`: the group is in use, or `--force` was not given',
  },
  { code: of('forbidden'), meaning: 'Consul denied access; the message names the missing rule' },
  { code: of('config'), meaning: 'bad configuration' },
  {
    code: String(EXIT_LOST),
    meaning:
      'the command was killed, because the lock was lost or an operator evicted the run; or an operator removed the waiting run from the queue, and nothing was started; or the command succeeded, but the run (`--publish`, `--during`) could not be recorded as successful in all its groups',
  },
  {
    code: String(EXIT_UNHEALTHY),
    meaning: "the command succeeded, but the node's services were not healthy within `--healthy-within`",
  },
  {
    code: String(EXIT_STOPPED),
    meaning:
      'the job of the run was stopped, no longer asks for this node, or another run of the task has served it: nothing was started, or the command was killed (`job cancel --kill`)',
  },
  { code: String(EXIT_TIMED_OUT), meaning: 'command killed by `--timeout`' },
  {
    code: `${of('not-executable')}, ${of('not-found')}`,
    meaning: 'command not executable, not found (checked before a slot is taken)',
  },
  { code: '128+n', meaning: 'the command, or a waiting runlock, was killed by signal n' },
];
