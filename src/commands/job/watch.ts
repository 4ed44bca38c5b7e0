/** `runlock job watch`: follows a job to its end. Ctrl-C leaves the job alone. */
import { jobText } from '../../jobs/keys.ts';
import type { JobRef } from '../../jobs/keys.ts';
import { FIRST_CONTACT } from '../../consul/consul.ts';
import { readAgents } from '../../jobs/read-agents.ts';
import { isEnded } from '../../jobs/stage.ts';
import { viewJob } from '../../jobs/view.ts';
import type { JobView } from '../../jobs/view.ts';
import { hint } from '../../text/suggested-command.ts';
import { exitOf } from '../../view/job-outcome.ts';
import { createOutput } from '../../platform/terminal.ts';
import type { Platform } from '../platform.ts';
import type { ConsulWays } from '../with-consul.ts';
import { noJob } from './home.ts';
import { checkInside } from './inside.ts';
import { follow, tellChanges } from './tell.ts';

interface WatchOptions {
  readonly prefix: string;
  readonly ref: JobRef;
  readonly json: boolean;
}

export async function watch(ways: ConsulWays, options: WatchOptions, platform: Platform): Promise<number> {
  const { consul, signal } = ways;
  const view = await viewJob({ consul, ...options }, { ...FIRST_CONTACT, signal });
  if (!view) throw noJob(options);
  if (!view.isOver) await checkInside(ways, await needsOf(ways, options.prefix, view), platform);
  return watchToEnd(ways, { ...options, home: view.job.spec.value.home }, platform);
}

export async function watchToEnd(
  { consul, deps, signal }: ConsulWays,
  { prefix, ref, home, json }: WatchOptions & { readonly home: string },
  platform: Platform,
): Promise<number> {
  const looker = { consul, deps, prefix, ref, signal };
  const watching = { ...looker, live: true };
  const isDrawn = !json && createOutput({ env: platform.env, isTTY: platform.stdout.isTTY }).live;
  const toEnd = isDrawn
    ? async () => (await import('./table.ts')).showToEnd(watching, home, platform)
    : () => follow(watching, home, { tell: tellChanges(platform, json) });
  return sayingLeft({ deps, signal }, looker, async () => exitOf(await toEnd()));
}

/** A signal leaves the job alone, and says how to go on. */
export async function sayingLeft<T>(
  { deps, signal }: Pick<ConsulWays, 'deps' | 'signal'>,
  { prefix, ref }: Pick<WatchOptions, 'prefix' | 'ref'>,
  act: () => Promise<T>,
): Promise<T> {
  try {
    return await act();
  } catch (error) {
    const job = jobText(ref);
    const command = (...words: readonly string[]) => hint(prefix, 'job', ...words);
    const detail = { watch: command('watch', job), cancel: command('cancel', job, '--reason', 'WHY') };
    if (signal.aborted) deps.emit({ event: 'job-left', job, detail });
    throw error;
  }
}

/** What the targets that have not ended need; of a node whose agent is away, what is known. */
async function needsOf({ consul, signal }: ConsulWays, prefix: string, { job, targets }: JobView) {
  const { home, task } = job.spec.value;
  const nodes = targets.flatMap(({ node, state }) => (isEnded(state) ? [] : [node]));
  const agents = await readAgents(consul, { prefix, nodes }, { ...FIRST_CONTACT, signal });
  const groups = [...agents.values()].flatMap((seen) =>
    seen.kind === 'there' ? (seen.document.tasks.find(({ name }) => name === task)?.groups ?? []) : [],
  );
  return { prefix, nodes, groups: [...new Set([home, ...groups])] };
}
