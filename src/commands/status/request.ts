/** What a command line asks of `status`. */
import type { ServiceScope } from '../../view/services.ts';
import type { Scope } from '../../view/sources.ts';
import type { CheckLimits } from './check.ts';

export interface StatusRequest extends Scope {
  readonly json: boolean;
  /** Whether text output lists each idle group too. */
  readonly all?: true;
  /** Only groups that are blocked. */
  readonly blocked?: true;
  /** Show this node instead, by the groups that are named, or by all. */
  readonly node?: string;
  /** The services whose health gates are shown too; only if the report is shown once. */
  readonly gate?: ServiceScope;
  /** Undefined: the report is shown once. */
  readonly mode?: StatusMode;
}

export type StatusMode =
  | { readonly kind: 'watch' }
  | ({ readonly kind: 'check' } & CheckLimits)
  /** A check was asked for, but the command line is wrong; `message` says how. */
  | { readonly kind: 'wrong-check'; readonly message: string };
