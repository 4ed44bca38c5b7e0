/** What a hook posts (docs/triggers.md, "Hooks"). Pure. */
import { createHmac } from 'node:crypto';
import type { Sight } from '../../conditions/marks.ts';

export interface Told {
  readonly hook: string;
  readonly node: string;
  /** The same for each try to tell of the same change. */
  readonly id: string;
  /** When this try is sent; a receiver can refuse what is old. */
  readonly sentAt: string;
  readonly sights: readonly Sight[];
  /** Names of the conditions that are news. */
  readonly news: readonly string[];
}

export function toBody({ hook, node, id, sentAt, sights, news }: Told): string {
  const conditions = sights.map(({ name, holds, is, state }) => ({
    condition: name,
    holds,
    changed: news.includes(name),
    is,
    ...(state && {
      value: state.value,
      by: state.by,
      at: state.at,
      change: state.change,
      ...(state.run !== undefined && { run: state.run }),
    }),
  }));
  return JSON.stringify({ v: 1, hook, node, id, sentAt, conditions });
}

/** `X-Runlock-Signature`: a receiver computes the same of the body's bytes, and looks at `sentAt` in it. */
export const signatureOf = (body: string, secret: Uint8Array): string =>
  `sha256=${createHmac('sha256', secret).update(body).digest('hex')}`;
