/** Follows the claims under which states of `--during` stand: which these are shows only when the states are read. */
import { untilChanged } from '../state/claims.ts';
import type { Look } from './read.ts';

/** Queries of one wait for claims, beside those of its conditions (`MOST_WATCHES`). */
export const MOST_CLAIMS = 4;
/** With more claims than that, how often all of them are read. */
export const UNFOLLOWED_MS = 5_000;

/**
 * @param ring asks for a look, also after one that is under way.
 * @returns `only`: follows the claims of this look, and no others any more.
 */
export function followClaims(looking: Parameters<typeof untilChanged>[0], ring: () => void) {
  const followed = new Map<string, AbortController>();
  return {
    only: ({ claims, entries }: Look): void => {
      const wanted = new Map(
        claims.slice(0, MOST_CLAIMS).map((source) => {
          const modifyIndex = entries.find(({ key }) => key === source.key)?.modifyIndex;
          return [`${source.key} ${modifyIndex ?? 'none'}`, { ...source, modifyIndex }];
        }),
      );
      for (const [id, over] of followed) {
        if (wanted.has(id)) continue;
        over.abort();
        followed.delete(id);
      }
      for (const [id, claim] of wanted) {
        if (followed.has(id)) continue;
        const over = new AbortController();
        followed.set(id, over);
        const signal = AbortSignal.any([looking.signal, over.signal]);
        // What it can't see any more, the look that follows says.
        untilChanged({ ...looking, signal }, claim).then(ring, () => {
          followed.delete(id);
          if (!signal.aborted) ring();
        });
      }
    },
  };
}
