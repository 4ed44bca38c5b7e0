/**
 * Whether something came and went between two looks. Nothing of it is in what they read, but Consul keeps the index of
 * the last change below a prefix, deletions too, for 15 minutes (docs/adr/0032).
 */
import type { Consul, RetryOptions } from '../consul/consul.ts';
import { mapFew } from './few.ts';

/** A place where something that came and went is not seen any more. */
export interface Trace {
  /** Everything that begins so. */
  readonly prefix: string;
  /** A key that gives the place an index of its own while nothing else is there. */
  readonly open?: string;
}

/** The changes of each trace so far, by its prefix. */
export type Counts = ReadonlyMap<string, number>;

/** How often to look where the last write was. */
const TRIES = 5;

/** Counts from the first time that a trace is asked for; two equal counts mean that nothing changed between. */
export function countChanges(
  consul: Consul,
): (traces: readonly Trace[], options: RetryOptions) => Promise<Counts> {
  const known = new Map<string, { at: number; count: number }>();
  const counted = async (trace: Trace, options: RetryOptions) => {
    const { prefix } = trace;
    const before = known.get(prefix);
    if (!before && trace.open !== undefined) await openPlace(consul, trace.open, options);
    let seen = await consul.indexOf(prefix, options);
    let has = before !== undefined && (await hasChanged(consul, { trace, seen, at: before.at }, options));
    for (let tries = 1; has && before && tries < TRIES; tries += 1) {
      // If other writes came between those reads, they could not be told apart.
      const again = await consul.indexOf(prefix, options);
      if (again.index === seen.index || again.names.length > 0) break;
      seen = again;
      has = await hasChanged(consul, { trace, seen, at: before.at }, options);
    }
    const count = (before?.count ?? 0) + (has ? 1 : 0);
    known.set(prefix, { at: seen.index, count });
    return [prefix, count] as const;
  };
  return async (traces, options) => {
    const each = [...new Map(traces.map((trace) => [trace.prefix, trace])).values()];
    return new Map(await mapFew(each, (trace) => counted(trace, options)));
  };
}

/**
 * Beside an existing key in its folder, a key that is not there has an index of its own, and is woken by nobody else
 * (measured). Without the right to write it, all goes on as it is.
 */
export async function openPlace(consul: Consul, key: string, { signal }: RetryOptions): Promise<void> {
  await consul.transact([{ verb: 'cas', key, value: '', index: 0 }], { signal }).catch(() => {
    signal.throwIfAborted();
  });
}

interface Asked {
  readonly trace: Trace;
  readonly seen: Awaited<ReturnType<Consul['indexOf']>>;
  /** The index that it had before. */
  readonly at: number;
}

/** Errs only in saying yes. */
async function hasChanged(consul: Consul, { trace, seen, at }: Asked, options: RetryOptions) {
  const { index, names } = seen;
  if (index === at) return false;
  // Back: deletions are forgotten, or the store is an older one.
  if (index < at || names.length > 0) return true;
  // If nothing was ever there, this is the index of the last write anywhere. So look where that write was.
  for (const folder of foldersAround(trace.prefix)) {
    const around = await consul.indexOf(folder, options);
    if (around.index < index) return false;
    if (await isAnother(consul, { trace, seen, folder, names: around.names }, options)) return false;
    if (around.names.length > 0) return true;
  }
  return true;
}

/** With more requests than that, what changed is not looked for. */
const MOST_BESIDE = 40;

/**
 * Whether that write was to another key of the same folder, whose `names` these are. No transaction changes a freeze, an
 * agent or the mark of a node, and another key of its folder. Names are asked for by their first letters, of which there
 * are few, unless the trace begins alike.
 */
async function isAnother(
  consul: Consul,
  {
    trace: { prefix },
    seen,
    folder: { length },
    names,
  }: Pick<Asked, 'trace' | 'seen'> & { readonly folder: string; readonly names: readonly string[] },
  options: RetryOptions,
): Promise<boolean> {
  if (prefix.lastIndexOf('/') !== length - 1) return false;
  const starts = names.flatMap((name) => {
    const start = name[length] === '.' ? name : name.slice(0, length + 1);
    const own = prefix.startsWith(start) ? name : start;
    return prefix.startsWith(own) ? [] : [own];
  });
  const each = [...new Set(starts)];
  if (each.length > MOST_BESIDE) return false;
  const found = await mapFew(each, (start) => consul.indexOf(start, options));
  return found.some(({ names: own, index }) => own.length > 0 && index === seen.index);
}

/** From the narrowest: `a/b/`, `a/`. (Consul's HTTP server takes no prefix that ends with `/.`.) */
function foldersAround(prefix: string): readonly string[] {
  const parts = prefix.replace(/\/$/, '').split('/').slice(0, -1);
  return parts.map((_, i) => `${parts.slice(0, parts.length - i).join('/')}/`);
}
