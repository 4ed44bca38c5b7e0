// Exit codes and what they mean: the one list behind the README and the man page.
import { EXIT_LOST, EXIT_TIMED_OUT, EXIT_UNHEALTHY, RunlockError, exitStatus } from '../../src/errors.ts';
import type { ErrorCode } from '../../src/errors.ts';

const of = (code: ErrorCode) => String(exitStatus(new RunlockError(code, '')));

export interface ExitCode {
  readonly code: string;
  readonly meaning: string;
}

export const exitCodes: readonly ExitCode[] = [
  { code: "the command's", meaning: 'it ran' },
  { code: of('usage'), meaning: 'wrong usage' },
  { code: of('unreachable'), meaning: 'Consul not reachable' },
  { code: of('bug'), meaning: 'a bug in runlock' },
  { code: of('unwritten'), meaning: 'what was asked for could not be written to stdout, as on a full disk' },
  {
    code: of('busy'),
    meaning:
      "busy: no slot within `--wait`, the gate of a service closed, or its lock kept by another for two minutes, frozen, or this node already runs or waits in this group (`-E` changes it); for `release`: a run waits, is alive, or may still be at work, and `--force` was not given, or a session that is no run's holds the slot's lock; for `gate`: closed",
  },
  { code: of('forbidden'), meaning: 'Consul refused; the message names the missing rule' },
  { code: of('config'), meaning: 'bad configuration' },
  {
    code: String(EXIT_LOST),
    meaning:
      'lock lost, or run evicted, while running; the command was killed. Or sent away from the queue by an operator; nothing was started',
  },
  {
    code: String(EXIT_UNHEALTHY),
    meaning:
      "the command did well, and the node's services were not healthy within `--healthy-within` after it",
  },
  { code: String(EXIT_TIMED_OUT), meaning: '`--timeout` ended the command' },
  {
    code: `${of('not-executable')}, ${of('not-found')}`,
    meaning: 'command not executable, not found (found out before a slot is taken)',
  },
  { code: '128+n', meaning: 'the command, or a waiting runlock, died of signal n' },
];
