/** Requests of one look at a time: it takes no more connections than these. */
const AT_ONCE = 4;

/** As `Promise.all` of all, a few at a time. */
export async function mapFew<T, R>(items: readonly T[], act: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let i = 0; i < items.length; i += AT_ONCE)
    results.push(...(await Promise.all(items.slice(i, i + AT_ONCE).map(act))));
  return results;
}
