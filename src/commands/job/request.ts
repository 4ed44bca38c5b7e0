/** What a command line asks of `runlock job`. */
import type { Spec } from '../../jobs/documents.ts';
import type { Wanted } from '../../jobs/find.ts';
import type { JobRef } from '../../jobs/keys.ts';
import type { Amount } from '../../jobs/plan.ts';

/** Only what the line says. */
export interface Rollout {
  readonly canary?: Amount;
  readonly steps?: readonly Amount[];
  /** Between two stages. */
  readonly pauseMs?: number;
  readonly maxRunning?: Amount;
  readonly maxFailures?: number;
  readonly offline?: Spec['offline'];
  readonly splayMs?: number;
  readonly noop?: true;
}

/** Of `start` and `retry`. */
export interface Beginning extends Rollout {
  readonly reason?: string;
  /** Undefined: one is made up. */
  readonly id?: string;
  /** Nothing of the job starts later than this after its start. */
  readonly expiresMs: number;
  /** Of each node's command; undefined: as its task says. */
  readonly timeoutMs?: number;
  /** How long to wait for the nodes' answers; not used with `watch`. */
  readonly waitMs: number;
  readonly watch: boolean;
  readonly dryRun: boolean;
}

export interface StartRequest extends Beginning {
  readonly action: 'start';
  readonly task: string;
  readonly wanted: Wanted;
  readonly params: ReadonlyMap<string, string>;
  readonly principal: string;
}

/** Which targets of the job: those that failed, those that were lost, those that never ran. None: all that are not good. */
export type RetryKind = 'failed' | 'lost' | 'not-started';

export interface RetryRequest extends Beginning {
  readonly action: 'retry';
  readonly ref: JobRef;
  readonly kinds: readonly RetryKind[];
}

export interface CancelRequest {
  readonly action: 'cancel';
  readonly ref: JobRef;
  readonly reason: string;
  readonly kill: boolean;
}

export interface LogsRequest {
  readonly action: 'logs';
  readonly ref: JobRef;
  readonly node: string;
  readonly follow: boolean;
  /** Undefined: all. */
  readonly lines: number | undefined;
  /** On a terminal too: bytes as they are. */
  readonly raw: boolean;
  /** For each answer of the node's agent. */
  readonly waitMs: number;
}

export type JobRequest =
  | StartRequest
  | RetryRequest
  | CancelRequest
  | LogsRequest
  | { readonly action: 'list' }
  | { readonly action: 'show' | 'watch'; readonly ref: JobRef };

export type JobOptions = JobRequest & { readonly prefix: string; readonly json: boolean };
