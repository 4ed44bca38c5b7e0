/** Whether a node may be taken out of service now (docs/adr/0014-health-gate.md). Pure. */
import type { Instance } from './instances.ts';

/** How many instances of a service may be offline at once: a number, or a percentage of all instances. */
export type MaxOffline = number | { readonly percent: number };

export interface Bounds {
  readonly maxOffline: MaxOffline;
  /** How many instances must stay healthy, whatever `maxOffline` says. */
  readonly minHealthy?: number;
  /** The gate of a service without instances is open, because this node may be the first to offer it. */
  readonly allowUnknown?: boolean;
}

export interface Question extends Bounds {
  readonly service: string;
  readonly instances: readonly Instance[];
  /** The node that asks. */
  readonly node: string;
  /** Other nodes that run in the group now: each can go offline at any moment. */
  readonly running?: readonly string[];
  /** Other nodes for which the run waits elsewhere: instances that are offline on these nodes do not count here. */
  readonly waitedFor?: readonly string[];
  /** Whether `node` was seen to offer the service before. */
  readonly wasHere?: boolean;
}

/** An instance on another node that is offline, or counts as offline. */
export interface OfflinePeer {
  readonly node: string;
  /** The instance's id at its node's agent. */
  readonly id: string;
  readonly why: string;
}

export interface Verdict {
  readonly service: string;
  readonly open: boolean;
  readonly because: Because;
  /** All instances. */
  readonly total: number;
  /** How many of them may be offline. */
  readonly limit: number;
  readonly minHealthy?: number;
  /** How many instances of the service this node offers. */
  readonly ownInstances: number;
  readonly own: 'healthy' | 'offline' | 'none';
  /** Why the node's own instance is offline. */
  readonly ownWhy?: string;
  /** The other nodes' instances that are offline, or count as such. */
  readonly offline: readonly OfflinePeer[];
}

export type Because =
  /** Open: enough instances stay healthy even with this node's instances offline too. */
  | 'room'
  /** Open: this node's own instance is offline already, and its run may repair it. */
  | 'own-offline'
  /** Open: this node has no instance, so nothing goes offline. */
  | 'not-here'
  /** Closed: this node had an instance and has none now, perhaps because its agent is restarting. */
  | 'away'
  /** No node offers the service: the name is wrong, or all instances are gone. Closed, unless `allowUnknown`. */
  | 'nowhere'
  /** Closed. */
  | 'too-many-offline'
  | 'too-few-healthy'
  /** Closed for ever: this node alone offers more instances than the limit. */
  | 'too-many-here';

/** The most instances that may be offline at once. */
export function limitOf(maxOffline: MaxOffline, total: number): number {
  if (typeof maxOffline === 'number') return maxOffline;
  return Math.max(1, Math.floor((maxOffline.percent * total) / 100));
}

export function decideGate(question: Question): Verdict {
  const { service, instances, node, minHealthy, running = [], waitedFor = [] } = question;
  const own = instances.filter((instance) => instance.node === node);
  const ownOffline = own.find(({ state }) => state === 'offline');
  const offline = instances
    .filter((instance) => instance.node !== node && !waitedFor.includes(instance.node))
    .flatMap(({ node: peer, serviceId: id, state, why = state }): OfflinePeer[] => {
      if (state === 'offline') return [{ node: peer, id, why }];
      return running.includes(peer) ? [{ node: peer, id, why: RUNNING }] : [];
    });
  const limit = limitOf(question.maxOffline, instances.length);
  const because = weigh({
    total: instances.length,
    own: own.length,
    ownOffline: ownOffline !== undefined,
    offline: offline.length,
    limit,
    minHealthy: minHealthy ?? 0,
    wasHere: question.wasHere ?? false,
  });
  return {
    service,
    open: isOpen(because, question),
    because,
    total: instances.length,
    limit,
    ...(minHealthy !== undefined && { minHealthy }),
    ownInstances: own.length,
    own: ownOffline ? 'offline' : own.length > 0 ? 'healthy' : 'none',
    ...(ownOffline?.why !== undefined && { ownWhy: ownOffline.why }),
    offline,
  };
}

const RUNNING = 'runs now';

interface Counts {
  readonly total: number;
  readonly own: number;
  readonly ownOffline: boolean;
  /** How many of the other nodes' instances are offline. */
  readonly offline: number;
  readonly limit: number;
  readonly minHealthy: number;
  readonly wasHere: boolean;
}

function weigh({ wasHere, total, own, ownOffline, offline, limit, minHealthy }: Counts): Because {
  if (own === 0 && wasHere) return 'away';
  if (total === 0) return 'nowhere';
  if (own === 0) return 'not-here';
  if (ownOffline) return 'own-offline';
  if (own > limit) return 'too-many-here';
  if (offline + own > limit) return 'too-many-offline';
  return total - offline - own < minHealthy ? 'too-few-healthy' : 'room';
}

function isOpen(because: Because, { allowUnknown = false }: Bounds): boolean {
  if (because === 'nowhere') return allowUnknown;
  return ['room', 'own-offline', 'not-here'].includes(because);
}

/**
 * How many runs at once to allow in the group: no more than the services with healthy instances on this node can
 * spare.
 */
export function slotsWithin(slots: number, verdicts: readonly Verdict[]): number {
  const healthy = verdicts.filter(({ own }) => own === 'healthy');
  const within = healthy.map(({ limit, ownInstances }) => Math.max(1, Math.floor(limit / ownInstances)));
  return Math.min(slots, ...within);
}
