/** What `runlock release` is asked, and what it has done. */
import type { Consul } from '../../consul/consul.ts';
import type { Deps } from '../../platform/deps.ts';
import type { Claim } from '../../lock/records.ts';
import type { GroupKeys } from '../../lock/keys.ts';

/** True: the person at the terminal typed yes. Undefined: there is nobody to be asked. */
export type Confirm = (question: string) => boolean | undefined;

export interface ReleaseOptions {
  readonly prefix: string;
  readonly group: string;
  /** Whose claim; this node's own unless given. */
  readonly owner?: string;
  /** This node's name where it was given: with the same `owner` it is no operator. */
  readonly node?: string;
  readonly slot?: number;
  /** What this node holds has failed: it keeps the slot, and nothing else is touched. */
  readonly failed?: { readonly exitCode?: number };
  readonly force: boolean;
  /** Who asks, for the claim of an evicted run. */
  readonly by: string;
}

export interface Released {
  readonly slot: number;
  readonly node: string;
  readonly state: Claim['state'];
  /**
   * `unwatched`: nobody has said that it is over, so the node may still be at work. `given-back`, `kept`: the second half
   * of its own `acquire`, with --failed for `kept`.
   */
  readonly how: 'cleared' | 'unwatched' | 'evicted' | 'given-back' | 'kept';
  /** A run of the node that waited for this claim, and was sent away with it. */
  readonly sentAway?: { readonly run: string; readonly how: 'left' | 'silent' | 'dead' };
  /** From `acquire` to the second half. */
  readonly heldMs?: number;
  /** Of a slot that it keeps: when others may follow. */
  readonly heldUntil?: string;
}

export type ReleaseResult =
  | {
      readonly kind: 'released';
      readonly node: string;
      readonly group: string;
      readonly claims: readonly Released[];
    }
  /** Of a run that waited. `dead`: its runlock was. `silent`: its runlock has not said that it knows. */
  | {
      readonly kind: 'sent-away';
      readonly node: string;
      readonly group: string;
      readonly run: string;
      readonly how: 'left' | 'silent' | 'dead';
    }
  /** `claim`: what it has there all the same, which --failed does not touch. */
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
  /** Not an operator's word, but the node's own. */
  readonly itself: boolean;
  readonly confirm: Confirm;
  /** The runs about which the person has said yes. */
  readonly confirmed: Set<string>;
  readonly signal: AbortSignal;
}
