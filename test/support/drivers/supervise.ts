// Supervises one command as runlock does, without a lock, so that a test can kill, stop or signal it from outside.
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';

import { startCommand } from '../../../src/process/command.ts';
import { keepGuard } from '../../../src/process/guard/guard.ts';
import { realClock } from './clock.ts';

interface Plan {
  readonly folder: string;
  readonly nonce: string;
  readonly shareTerminal: boolean;
  readonly args: readonly string[];
  /** No guard unless it is given. */
  readonly lifeMs?: number;
  /** The signal that makes it end the command instead of passing the signal on: by TERM, and when it comes again by KILL. */
  readonly killOn?: string;
}

const plan = JSON.parse(process.argv[2] ?? '') as Plan;
const note = (name: string, line: unknown) => appendFileSync(join(plan.folder, name), `${String(line)}\n`);

const guard =
  plan.lifeMs === undefined
    ? undefined
    : keepGuard({
        nonce: plan.nonce,
        lifeMs: plan.lifeMs,
        path: process.env['PATH'],
        clock: realClock,
        report: (event) => {
          note('events', event.kind);
          noteGuard();
        },
      });

function noteGuard() {
  for (const pid of guard?.pids() ?? []) note('guard.pid', pid);
}

const command = await startCommand({
  command: 'sh',
  file: '/bin/sh',
  args: plan.args,
  env: process.env,
  nonce: plan.nonce,
  shareTerminal: plan.shareTerminal,
  except: () => guard?.pids() ?? [],
  clock: realClock,
});
guard?.watch(command);
noteGuard();
const { lifeMs = 1000 } = plan;
const beats = setInterval(() => guard?.beat(lifeMs), lifeMs / 4);

let killAfterMs = 60_000;
for (const name of ['SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGTERM', 'SIGUSR1', 'SIGUSR2'] as const) {
  process.on(name, () => {
    note('signals', name);
    if (name === plan.killOn) {
      void command.kill({ killAfterMs }).then(() => note('killed', 'all'));
      killAfterMs = 0;
    } else void command.signal(name).then(() => note('decided', name));
  });
}
note('driver.pid', process.pid);

const ending = await command.ended;
clearInterval(beats);
await guard?.disarm();
// Nothing may keep it alive now.
note('ending', JSON.stringify(ending));
