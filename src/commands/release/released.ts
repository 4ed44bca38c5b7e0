/** What `runlock release` is asked to do, and what it has done. */
import type { Consul } from '../../consul/consul.ts';
import type { Deps } from '../../platform/deps.ts';
import type { Claim } from '../../lock/records.ts';
import type { GroupKeys } from '../../lock/keys.ts';
import type { OutsideTurn } from '../../lock/outside.ts';

/** True: the person at the terminal typed yes. Undefined: there is no terminal to ask at. */
export type Confirm = (question: string) => boolean | undefined;

export interface ReleaseOptions {
  readonly prefix: string;
  readonly group: string;
  /** The node that owns the claim; default: this node. */
  readonly owner?: string;
  /** This node's name, if given; if `owner` is the same, the node itself asks and not an operator. */
  readonly node?: string;
  readonly slot?: number;
  /** The work of this node failed: its claim keeps the slot, and nothing else is changed. */
  readonly failed?: { readonly exitCode?: number };
  readonly force: boolean;
  /** Name of the person who asks, recorded in the claim of an evicted run. */
  readonly by: string;
}

/**
 * `dead`: its runlock was dead. `silent`: its runlock has not confirmed. `later`: nor can it yet, because its session could
 * not be ended.
 */
type Away = 'left' | 'silent' | 'later' | 'dead';

export interface Released {
  readonly slot: number;
  readonly node: string;
  readonly state: Claim['state'];
  /**
   * `unwatched`: the work was not reported as finished, so the node may still be at it. `given-back`, `kept`: the node
   * ended its own `acquire`, with --failed for `kept`.
   */
  readonly how: 'cleared' | 'unwatched' | 'evicted' | 'given-back' | 'kept';
  /** A run of the node that waited for this claim and was sent away too. */
  readonly sentAway?: { readonly run: string; readonly how: Away };
  /** Time from `acquire` to its release. */
  readonly heldMs?: number;
  /** For a kept slot: when other runs may have it. */
  readonly heldUntil?: string;
}

export type ReleaseResult =
  | {
      readonly kind: 'released';
      readonly node: string;
      readonly group: string;
      readonly claims: readonly Released[];
    }
  /** A waiting run was sent away. */
  | {
      readonly kind: 'sent-away';
      readonly node: string;
      readonly group: string;
      readonly run: string;
      readonly how: Away;
    }
  /** Nothing was done: a run of the node waits without a slot, and only its own host can stop it. */
  | {
      readonly kind: 'outside';
      readonly node: string;
      readonly group: string;
      readonly run: string;
      /** ISO 8601. */
      readonly since: string;
      readonly command: string;
      /** The conditions of `--when`. */
      readonly when: readonly string[];
      /** Of its gate. Absent: it has none. */
      readonly services?: readonly string[];
      /** The run that has the node's turn on its host. Absent: the run does not wait for it. */
      readonly turn?: OutsideTurn;
    }
  /** `claim`: the state of a claim that the node has, but that --failed does not change. */
  | {
      readonly kind: 'nothing';
      readonly node: string;
      readonly group: string;
      readonly claim?: Claim['state'];
    };

export interface Target {
  readonly consul: Consul;
  readonly deps: Deps;
  readonly keys: GroupKeys;
  readonly options: ReleaseOptions & { owner: string };
  /** Whether the node itself asks, and not an operator. */
  readonly itself: boolean;
  readonly confirm: Confirm;
  /** The runs that the person has confirmed. */
  readonly confirmed: Set<string>;
  readonly signal: AbortSignal;
}
