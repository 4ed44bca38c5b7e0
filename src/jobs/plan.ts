/** Which targets come when: canaries, then steps, then all others. Pure. */
import { NO_STAGE } from './stage.ts';
import type { Spec, Targets } from './documents.ts';

/** A number of targets, or a part of all of them. */
export type Amount =
  { readonly kind: 'count'; readonly count: number } | { readonly kind: 'percent'; readonly percent: number };

/** Of `total` targets; a part is rounded up, so it is never nobody. */
export const amountOf = (amount: Amount, total: number): number =>
  Math.min(total, amount.kind === 'count' ? amount.count : Math.ceil((amount.percent * total) / 100));

/** As it was asked: `3`, `25%`. */
export const amountText = (amount: Amount): string =>
  amount.kind === 'count' ? String(amount.count) : `${amount.percent}%`;

/** A node that a request is for. `ready`: its agent is there and takes requests; `paused`: once somebody resumes it. */
export interface Candidate {
  readonly node: string;
  readonly agent: 'ready' | 'paused' | 'offline';
}

export interface Plan {
  /** The first stage has at most so many. */
  readonly canary?: Amount;
  /** How many targets, earlier stages among them, are in the stages up to each step; then follows the stage of all others. */
  readonly steps?: readonly Amount[];
  readonly offline: Spec['offline'];
}

/**
 * The stage of each target, in the order in which they come: those whose agent serves them first, each kind by name. A
 * canary has to have an agent that serves it, or it would prove nothing. Targets that are offline and are not waited for
 * belong to no stage.
 */
export function planTargets(
  candidates: readonly Candidate[],
  { canary, steps = [], offline }: Plan,
): Targets['targets'] {
  const of = (agent: Candidate['agent']) =>
    candidates
      .filter((each) => each.agent === agent)
      .map(({ node }) => node)
      .sort((a, b) => (a < b ? -1 : 1));
  const [ready, paused, away] = [of('ready'), of('paused'), of('offline')];
  const placed = [...ready, ...paused, ...(offline === 'wait' ? away : [])];
  const total = placed.length;
  const first = canary && Math.min(amountOf(canary, total), ready.length || total);
  const ends = [
    ...(first === undefined ? [] : [first]),
    ...steps.map((step) => amountOf(step, total)),
    total,
  ];
  // A stage that would be empty is none.
  const limits = [...new Set(ends.map((_, i) => Math.max(...ends.slice(0, i + 1))))];
  const stageOf = (at: number) => limits.findIndex((limit) => at < limit);
  return [
    ...placed.map((node, at) => [node, stageOf(at)] as const),
    ...(offline === 'wait' ? [] : away).map((node) => [node, NO_STAGE] as const),
  ];
}

/** What `amountText` wrote. */
export function amountOfText(text: string): Amount {
  const number = Number.parseInt(text, 10) || 1;
  return text.endsWith('%') ? { kind: 'percent', percent: number } : { kind: 'count', count: number };
}
