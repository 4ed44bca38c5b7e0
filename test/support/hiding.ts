// A command that hides from whoever supervises it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Agent } from './consul.ts';
import { eventually } from './processes.ts';
import { startRunlock } from './runlock.ts';
import { stage } from './stage.ts';

/** Hides in every way there is: no TERM, no mark, no parent, no session, another title, many at once. */
const hiding = `
exec >/dev/null 2>&1
trap '' TERM
sleep=$(command -v sleep)
(env -i setsid "$sleep" 300 &)
(env -i setsid sh -c '"$0" 300 & exec "$0" 300' "$sleep" &)
env -i perl -e '$0 = "x" x 4000; $SIG{TERM} = "IGNORE"; fork; setpgrp; sleep 300' &
(setsid sh -c 'trap "" TERM; (setsid "$0" 300 &); exec env -i "$0" 300' "$sleep" &)
(env -i setsid perl -e '$SIG{TERM} = "IGNORE"; while (1) { exit if fork; select undef, undef, undef, 0.001 }' &)
sleep=$sleep perl -e '$sleep = $ENV{sleep}; for (1 .. $ENV{many}) { if (!fork) { %ENV = (); setpgrp; exec $sleep, 300 } } open F, ">$ENV{folder}/ready"; close F; sleep 300' &
while :; do "$sleep" 300; done
`;

let groups = 0;

/** Runs it, with `many` children, in a group of its own. */
export function hide(
  agent: Agent,
  many: number,
  options: { through: readonly string[]; args?: readonly string[] },
) {
  const { folder } = stage();
  const group = `contained/${++groups}`;
  const args = ['exec', '-g', group, ...(options.args ?? []), '--', 'sh', '-c', hiding];
  const run = startRunlock(agent, args, {
    env: { folder, many: String(many), PATH: process.env['PATH'] },
    through: options.through,
  });
  const ready = () => eventually(() => readFileSync(join(folder, 'ready')), 120_000);
  return { run, ready, group, folder };
}
