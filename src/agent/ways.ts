/** What the parts of an agent work with. */
import type { Consul } from '../consul/consul.ts';
import type { Deps } from '../platform/deps.ts';
import type { Known, Self, TaskFiles } from './known.ts';
import type { PartEffects } from './parts.ts';
import type { Presence } from './presence.ts';
import type { HookWays } from './hooks.ts';
import type { Runs } from './runs.ts';
import type { RequestsChoice } from './serving.ts';
import type { StateFolder } from './state-folder.ts';
import type { Changing } from './watched.ts';

/** What hooks need of this host. */
export type Posting = Pick<HookWays, 'uid' | 'version' | 'authorities' | 'newId'>;

/** What each part works with. */
export interface AgentWays {
  readonly consul: Consul;
  readonly deps: Deps;
  readonly prefix: string;
  readonly node: string;
  readonly requests: RequestsChoice;
  readonly known: Changing<Known>;
  /** Reads the task files anew: what they say now counts for the next run. */
  readonly refresh: () => Promise<TaskFiles>;
  readonly state: StateFolder;
  readonly presence: Presence;
  readonly self: Self;
  readonly runs: Runs;
  readonly posting: Posting;
  /** For parts of a part. */
  readonly parts: PartEffects;
}
