/** One typed command → what it does, and its exit status. Each is loaded when it is asked for. */
import type { Invocation } from './cli/invocation.ts';
import { assertNever } from './errors.ts';
import type { Platform } from './commands/platform.ts';

/** @throws RunlockError: what ends the command before its time. */
export async function run(invocation: Invocation, platform: Platform): Promise<number> {
  switch (invocation.kind) {
    case 'text':
      await platform.write(invocation.text);
      return 0;
    case 'licenses':
      await platform.write((await import('./cli/licenses.ts')).licenses);
      return 0;
    case 'exec':
      return (await import('./run/exec.ts')).runExec(invocation, platform);
    case 'status':
      return (await import('./run/status.ts')).runStatus(invocation, platform);
    case 'acquire':
      return (await import('./run/acquire.ts')).runAcquire(invocation, platform);
    case 'release':
      return (await import('./run/release.ts')).runRelease(invocation, platform);
    case 'history':
      return (await import('./run/history.ts')).runHistory(invocation, platform);
    case 'freeze':
      return (await import('./run/freeze.ts')).runFreeze(invocation, platform);
    case 'thaw':
      return (await import('./run/thaw.ts')).runThaw(invocation, platform);
    case 'gate':
      return (await import('./run/gate.ts')).runGate(invocation, platform);
    case 'doctor':
      return (await import('./run/doctor.ts')).runDoctor(invocation, platform);
    case 'completion':
      return (await import('./run/completion.ts')).runCompletion(invocation, platform);
    case 'complete':
      return (await import('./run/completion.ts')).runComplete(invocation, platform);
    case 'config':
      return (await import('./run/config.ts')).runConfig(invocation, platform);
    default:
      return assertNever(invocation);
  }
}
