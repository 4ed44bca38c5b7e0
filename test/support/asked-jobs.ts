// Jobs as their principal starts them, for agents that run, and what becomes of their targets.
import { connect } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { Spec, TargetDocument } from '../../src/jobs/documents.ts';
import { stopJob } from '../../src/jobs/end.ts';
import { lookAt } from '../../src/jobs/read.ts';
import type { Stop } from '../../src/jobs/stage.ts';
import { startJob } from '../../src/jobs/starter.ts';
import type { Target } from '../../src/jobs/starter.ts';
import type { SeenTarget } from '../../src/jobs/transactions.ts';
import type { Agent } from './consul.ts';
import { eventually } from './processes.ts';

const clock = {
  ...{ now: Date.now, monotonicMs: () => performance.now(), earliest: Date.now, latest: Date.now },
  sleep: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
};
const { signal } = new AbortController();
let count = 0;

export interface Asked extends Partial<Spec> {
  readonly principal?: string;
  readonly id?: string;
  readonly targets: readonly Target[];
}

/** Starts a job of the task `t` in the group `home`. */
export async function askFor(agent: Agent, home: string, { targets, principal = 'ops', id, ...more }: Asked) {
  const consul = connect(consulSettings(agent.env), { clock, emit: () => undefined });
  const ref = { principal, id: id ?? `a${(count += 1)}` };
  const common = { consul, prefix: 'runlock', deps: { clock, random: Math.random }, signal, ref };
  const spec = {
    ...{ nonce: `n${(count += 1)}`, task: 't', params: {}, home, maxFailures: 0, offline: 'wait' as const },
    ...{ pauseMs: 0, by: 'test', at: new Date().toISOString() },
    ...{ until: new Date(Date.now() + 3_600_000).toISOString(), ...more },
  };
  await startJob(common, { ref, spec, targets });
  const [[first] = ['']] = targets;
  const look = async (node = first): Promise<SeenTarget> => {
    const seen = await lookAt(common, { node }, { signal });
    if (seen.kind !== 'target') throw new Error(`the job is ${seen.kind}`);
    return seen.target;
  };
  const document = async (node = first): Promise<TargetDocument | undefined> =>
    (await look(node)).document?.value;
  return {
    ref,
    look,
    document,
    pointer: (node = first) => `runlock/.requests/${principal}/inbox/${node}/${ref.id}`,
    /** Resolves with the target once it is in this state. */
    becomes: (state: string, node = first, timeoutMs = 20_000) =>
      eventually(async () => {
        const now = await document(node);
        if (now?.state !== state) throw new Error(`${node} is ${JSON.stringify(now)}, not ${state}`);
        return now;
      }, timeoutMs),
    stop: (wish: Stop) => stopJob({ ...common, home: spec.home }, wish),
  };
}
