/** One typed command → what it does, and its exit status. Each is loaded when it is asked for. */
import type { Invocation } from './cli/invocation.ts';
import { assertNever } from './errors.ts';
import type { Platform } from './platform.ts';

/** @throws RunlockError: what ends the command before its time. */
export async function run(invocation: Invocation, platform: Platform): Promise<number> {
  switch (invocation.kind) {
    case 'text':
      await platform.write(invocation.text);
      return 0;
    case 'exec':
      return (await import('./run/exec.ts')).runExec(invocation, platform);
    case 'status':
      return (await import('./run/status.ts')).runStatus(invocation, platform);
    case 'release':
      return (await import('./run/release.ts')).runRelease(invocation, platform);
    default:
      return assertNever(invocation);
  }
}
