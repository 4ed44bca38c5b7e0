/** What every step of the protocol needs to know of the run that takes it. */
import type { Consul } from '../consul/consul.ts';
import type { Deps } from '../platform/deps.ts';
import type { Claim, Hold, NodeMark, Runner } from './records.ts';
import type { GroupKeys } from './keys.ts';

export interface RunContext {
  readonly consul: Consul;
  readonly deps: Deps;
  readonly keys: GroupKeys;
  readonly run: Run;
}

/** One execution of a command, before it has a slot. */
export interface Run {
  readonly id: string;
  readonly node: string;
  /** Base name only. */
  readonly command: string;
  readonly runner: Runner;
  readonly hold: Hold;
  /** A signal that ends the run ends its claim too, as a success does. */
  readonly releaseOnSignal?: true;
  /** How many slots this caller knows: it uses 0 to slots - 1. */
  readonly slots: number;
  /** All groups that it runs in, where they are several. */
  readonly groups?: readonly string[];
}

/** The time now as records carry it, for people: nothing is decided by it. */
export function timestamp({ deps }: Pick<RunContext, 'deps'>): string {
  return new Date(deps.clock.now()).toISOString();
}

/** The claim of a run that is granted now. */
export function runningClaim(context: RunContext): Claim {
  const { id, node, command, runner, hold, groups } = context.run;
  const since = timestamp(context);
  return { node, state: 'running', run: id, since, command, hold, ...(groups && { groups }), ...runner };
}

/** What a claim says that goes on in the claim after it, whatever run that is of: its node is still out of service. */
export function goesOn({ maintenance }: Claim): Pick<Claim, 'maintenance'> {
  return maintenance === undefined ? {} : { maintenance };
}

/** The claim of a run that takes its lock back: always another value, so that its index changes and watchers notice. */
export function returnedClaim(context: RunContext, before: Claim): Claim {
  const returns = (before.returns ?? 0) + 1;
  return { ...runningClaim(context), ...goesOn(before), since: before.since, returns };
}

export function nodeMark(context: RunContext): NodeMark {
  return { run: context.run.id, since: timestamp(context), ...context.run.runner };
}
