/** What a command line asks of `runlock job`. */
import type { JobRef } from '../../jobs/keys.ts';

export interface StartRequest {
  readonly action: 'start';
  readonly task: string;
  readonly nodes: readonly string[];
  readonly params: ReadonlyMap<string, string>;
  readonly principal: string;
  /** Undefined: one is made up. */
  readonly id?: string;
  readonly reason?: string;
  /** Nothing of the job starts later than this after its start. */
  readonly expiresMs: number;
  /** Of each node's command; undefined: as its task says. */
  readonly timeoutMs?: number;
  /** How long to wait for the nodes' answers; not used with `watch`. */
  readonly waitMs: number;
  readonly watch: boolean;
  readonly dryRun: boolean;
}

export interface CancelRequest {
  readonly action: 'cancel';
  readonly ref: JobRef;
  readonly reason: string;
  readonly kill: boolean;
}

export type JobRequest =
  | StartRequest
  | CancelRequest
  | { readonly action: 'list' }
  | { readonly action: 'show' | 'watch'; readonly ref: JobRef };

export type JobOptions = JobRequest & { readonly prefix: string; readonly json: boolean };
