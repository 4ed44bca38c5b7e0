/**
 * Which requests of an inbox are attended to. Those that can't be read are set aside: they keep no other waiting, count for
 * none of the open ones, and are looked at again now and then. Their pointers stay: they are not gone.
 */
import type { Attended } from './attend.ts';
import type { OpenRequest } from './inbox.ts';
import { MOST_OPEN } from './refusal.ts';

/** Those that may be open, and some that are refused because they are too many. */
const MOST_ATTENDED = MOST_OPEN + 20;
/** Between two looks at a request that can't be read. */
const AGAIN_MS = 60_000;
/** The more there are, the later each is looked at again. */
const AGAIN_EACH_MS = 50;

export interface Chooser {
  /** Those to attend to now, of all that are open, the oldest first. */
  chosen(open: Iterable<OpenRequest>, nowMs: number): readonly Attended[];
  /** It could be read. */
  read(id: string): void;
  /** It could not. Whether that is news. */
  setAside(id: string, nowMs: number): boolean;
  /** Only these are still there. */
  keep(named: ReadonlySet<string>): void;
  /** When one that is set aside is to be looked at again, in wall-clock milliseconds; Infinity: there is none. */
  dueMs(): number;
}

export function chooser(): Chooser {
  const read = new Set<string>();
  const aside = new Map<string, number>();
  return {
    chosen: (open, nowMs) => {
      const served: Attended[] = [];
      for (const request of open) {
        if ((aside.get(request.ref.id) ?? 0) > nowMs) continue;
        served.push({ ...request, older: served.length });
        if (served.length === MOST_ATTENDED) break;
      }
      const first = served.slice(0, MOST_OPEN);
      // Only once these have been read it is known whether the others are too many.
      return first.every(({ ref }) => read.has(ref.id)) ? served : first;
    },
    read: (id) => void read.add(id),
    setAside: (id, nowMs) => {
      const isNews = !aside.has(id);
      read.delete(id);
      aside.set(id, nowMs + Math.max(AGAIN_MS, aside.size * AGAIN_EACH_MS));
      return isNews;
    },
    keep: (named) => {
      for (const known of [read, aside]) for (const id of known.keys()) if (!named.has(id)) known.delete(id);
    },
    dueMs: () => [...aside.values()].reduce((least, untilMs) => Math.min(least, untilMs), Infinity),
  };
}
