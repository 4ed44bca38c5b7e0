/** What a command line asks of `status`. */
import type { ServiceScope } from '../../view/services.ts';
import type { Scope } from '../../view/sources.ts';
import type { CheckLimits } from './check.ts';

export interface StatusRequest extends Scope {
  readonly json: boolean;
  /** A line for each idle group, in text. */
  readonly all?: true;
  /** Only groups that are blocked. */
  readonly blocked?: true;
  /** Whose health gates are shown too; where it is shown once. */
  readonly gate?: ServiceScope;
  /** Unless given: it is shown once. */
  readonly mode?: StatusMode;
}

export type StatusMode =
  | { readonly kind: 'watch' }
  | ({ readonly kind: 'check' } & CheckLimits)
  /** A check was asked for, and this is what is wrong with how. */
  | { readonly kind: 'wrong-check'; readonly message: string };
