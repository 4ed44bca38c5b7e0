// Nobody reads what runlock says, while it has something to say.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { pipe } from '../support/pipe.ts';
import { eventually } from '../support/processes.ts';
import { RUNLOCK, clean } from '../support/program.ts';
import { stage } from '../support/stage.ts';

const agent = useAgent();

/** Longer than a guard waits for a word of runlock. */
const RUN_S = 40;

test(
  'a reader of stderr who stalls under a run: renewals and the guard’s beats go on',
  { timeout: 120_000 },
  async () => {
    const { folder, lines } = stage();
    const { fd, fill, drain } = pipe();
    const args = ['exec', '-g', 'stalled', '--node', 'web01', '--hold', 'none', '-v', '--'];
    const script = `echo >${folder}/started; sleep ${RUN_S}; exit 3`;
    const child = spawn(RUNLOCK, [...args, 'sh', '-c', script], {
      env: { ...clean, ...agent.env },
      detached: true,
      stdio: ['ignore', 'ignore', fd],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    const ended = once(child, 'close');
    await eventually(() => expect(lines('started')).toHaveLength(1));
    fill();
    const lock = () => agent.kv.get('runlock/stalled/.slot/0/lock');
    const session = (await lock())?.Session;
    await agent.http('PUT', `/v1/session/destroy/${session ?? ''}`);
    await eventually(async () => {
      const now = (await lock())?.Session;
      expect(now).toBeDefined();
      expect(now).not.toBe(session);
    }, 20_000);
    expect((await ended)[0]).toBe(3);
    // What fits into the pipe by then is there.
    expect(drain()).toMatch(/acquired slot 0 of stalled/);
  },
);
