/**
 * By which blocking queries the sources of conditions are followed. Consul accepts 200 connections from one address, and
 * those of one wait must leave room for every other run of the host (docs/adr/0032). Pure.
 */
import type { KeySource, ServiceSource, Source } from './sources.ts';

/** Blocking queries of one wait. With those of a look (`AT_ONCE`), one wait takes 12 connections at most. */
export const MOST_WATCHES = 8;

export type Watch =
  | { readonly kind: 'source'; readonly source: Source }
  /** Everything below a folder in which several sources are. Other keys wake it too. */
  | { readonly kind: 'folder'; readonly folder: string }
  /** Services that share a query: each is asked for a moment, one after the other. */
  | { readonly kind: 'turns'; readonly services: readonly ServiceSource[] };

/** At most `MOST_WATCHES`; each source has its own as long as there are no more sources than that. */
export function planWatches(sources: readonly Source[]): readonly Watch[] {
  const services = sources.filter((source) => source.kind === 'service');
  const keys = sources.filter((source) => source.kind !== 'service');
  const forServices = Math.min(services.length, Math.max(MOST_WATCHES - keys.length, MOST_WATCHES / 2));
  return [...watchKeys(keys, MOST_WATCHES - forServices), ...shareOut(services, forServices)];
}

interface Place {
  /** The key of its only source, or a folder. */
  readonly at: string;
  readonly source?: KeySource;
}

/** Joins the two places that have the deepest folder in common, until there are few enough. */
function watchKeys(keys: readonly KeySource[], most: number): Watch[] {
  let places: Place[] = keys.map((source) => ({ at: source.key, source }));
  while (places.length > most) {
    places.sort((a, b) => (a.at < b.at ? -1 : 1));
    // In this order, the deepest folder of any two places is one of two neighbours.
    const folders = places.slice(1).map(({ at }, i) => commonFolder(places[i]?.at ?? '', at));
    const folder = folders.reduce((best, one) => (depthOf(one) > depthOf(best) ? one : best));
    places = [...places.filter(({ at }) => !at.startsWith(folder)), { at: folder }];
  }
  return places.map(({ at, source }) =>
    source ? { kind: 'source', source } : { kind: 'folder', folder: at },
  );
}

const depthOf = (folder: string) => folder.split('/').length;

function commonFolder(one: string, other: string): string {
  let length = 0;
  while (length < one.length && one[length] === other[length]) length += 1;
  return one.slice(0, one.slice(0, length).lastIndexOf('/') + 1);
}

function shareOut(services: readonly ServiceSource[], shares: number): Watch[] {
  return Array.from({ length: shares }, (_, share): Watch => {
    const own = services.filter((_, i) => i % shares === share);
    const [source] = own;
    return source && own.length === 1 ? { kind: 'source', source } : { kind: 'turns', services: own };
  });
}
