// Does to Consul, and to the ways to it, what a plan says.
import type { Rule } from '../proxy.ts';
import type { Deed, Network } from './plan.ts';
import type { Surroundings } from './surroundings.ts';

export type Trouble = Of<'pause-server' | 'pause-agent' | 'restart-agent' | 'network'>;
type Of<Kind extends Deed['kind']> = Extract<Deed, { kind: Kind }>;

/** Says whom it hit, once it is over; undefined: it is in trouble already. */
export async function trouble(around: Surroundings, deed: Trouble): Promise<string | undefined> {
  switch (deed.kind) {
    case 'pause-server':
      return pause(around, 'server', { agent: around.server, forMs: deed.forMs });
    case 'pause-agent':
    case 'restart-agent':
      return troubleAgent(around, deed);
    case 'network':
      return troubleNetwork(around, deed);
  }
}

interface Pausing {
  readonly agent: { pause(): void; resume(): void; running(): boolean };
  readonly forMs: number;
}

async function pause(
  around: Surroundings,
  what: string,
  { agent, forMs }: Pausing,
): Promise<string | undefined> {
  if (around.isTroubled(what)) return undefined;
  await around.during(what, async () => {
    agent.pause();
    await around.lull(forMs);
    agent.resume();
  });
  return what;
}

async function troubleAgent(
  around: Surroundings,
  deed: Of<'pause-agent' | 'restart-agent'>,
): Promise<string | undefined> {
  const what = `agent ${deed.agent}`;
  const agent = around.agents[deed.agent];
  if (!agent || around.isTroubled(what)) return undefined;
  if (deed.kind === 'pause-agent') return pause(around, what, { agent, forMs: deed.forMs });
  await around.during(what, () => agent.restart(deed.how));
  return what;
}

const ACTIONS: Readonly<Record<Exclude<Network, 'sever'>, Rule['do']>> = {
  slow: { delayMs: 150 },
  slower: { delayMs: 2_500 },
  'drop-before': 'drop-before',
  'drop-after': 'drop-after',
  cut: 'cut',
  late: 'late',
  hang: 'hang',
  refuse: { status: 500, body: 'No cluster leader' },
};

async function troubleNetwork(around: Surroundings, deed: Of<'network'>): Promise<string | undefined> {
  const what = `gate ${deed.gate}`;
  const proxy = around.proxies[deed.gate];
  const { how } = deed;
  if (!proxy || around.isTroubled(what)) return undefined;
  if (how === 'sever') {
    proxy.sever();
    return what;
  }
  const matches = ({ path }: { path: string }) => path.startsWith(deed.path);
  await around.during(what, async () => {
    const end = proxy.rule({ match: matches, do: ACTIONS[how] });
    await around.lull(deed.forMs);
    end();
    if (how === 'late') await around.lull(2_000);
    // What was on its way arrives now, whatever has become of those who sent it.
    await proxy.release().catch(() => undefined);
  });
  return what;
}
