// A program whose main thread has ended while another one runs on: the kernel shows a zombie, with no environment.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { eventually } from './processes.ts';
import type { Scene } from './processes.ts';

/** Why there is none, for the name of the tests that are left out; undefined: there is. */
export const whyNotHollow = (process.env['PATH'] ?? '')
  .split(delimiter)
  .some((dir) => existsSync(join(dir, 'cc')))
  ? undefined
  : 'no cc in PATH';

const source = `
#include <pthread.h>
#include <unistd.h>
static void *go_on(void *unused) { for (;;) pause(); return unused; }
int main(void) {
  pthread_t thread;
  if (pthread_create(&thread, 0, go_on, 0) != 0) return 1;
  pthread_exit(0);
}
`;

/** Starts one that nothing but its environment ties to a run; resolves when its main thread has ended. */
export async function startHollow({ folder, nonce, pid: named }: Scene): Promise<number> {
  const program = join(folder, 'hollow');
  writeFileSync(`${program}.c`, source);
  execFileSync('cc', ['-pthread', '-o', program, `${program}.c`]);
  const env = { ...process.env, RUNLOCK_RUN_MARK: nonce };
  spawn('sh', ['-c', '"$0" & echo $! >"$0.pid"', program], { env, stdio: 'ignore', detached: true }).unref();
  const pid = await named('hollow');
  await eventually(() => {
    if (!/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))) throw new Error('its main thread runs');
  });
  return pid;
}
