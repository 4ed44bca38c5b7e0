/** Serves requests: one inbox for each principal that a task allows, and each open request by itself. */
import { jobText } from '../jobs/keys.ts';
import type { AgentWays } from './ways.ts';
import { chooser } from './aside.ts';
import { attend } from './attend.ts';
import type { Attended } from './attend.ts';
import { followInbox } from './inbox.ts';
import type { OpenRequest, OpenRequests } from './inbox.ts';
import { principalsOf } from './known.ts';
import { logReaders, paced } from './log-readers.ts';
import type { Pace } from './log-readers.ts';
import { keepRunning } from './parts.ts';
import type { Part } from './parts.ts';
import { places } from './places.ts';
import type { Places } from './places.ts';
import type { Runs } from './runs.ts';
import { changing } from './watched.ts';
import type { Changing } from './watched.ts';

/** Each is a connection; Consul allows 200 from one host, on which others ask it, too. */
const MOST_WATCHES = 20;
/** Those of one principal that ask Consul for something at the same time: what they read may be as large as Consul takes. */
const MOST_LOOKS = 8;

export function requests(ways: AgentWays): Part {
  const { runs, parts } = ways;
  return {
    name: 'requests',
    run: async (signal) => {
      const inboxes = new Map<string, AbortController>();
      const watches = places(MOST_WATCHES);
      const pace = paced(ways.deps.clock);
      const over = new AbortController();
      const running = new Set<Promise<void>>();
      try {
        for (;;) {
          const { value, change } = ways.known.look();
          const principals = principalsOf(value.files);
          for (const principal of principals) {
            if (inboxes.has(principal)) continue;
            const closed = new AbortController();
            inboxes.set(principal, closed);
            const part = inboxOf(principal, { ways, runs, watches, pace });
            const ends = AbortSignal.any([signal, over.signal, closed.signal]);
            const run = keepRunning(parts, part, ends).finally(() => running.delete(run));
            running.add(run);
          }
          for (const [principal, closed] of inboxes) {
            if (principals.includes(principal)) continue;
            inboxes.delete(principal);
            closed.abort();
          }
          await ways.known.past(change, { signal });
        }
      } finally {
        over.abort();
        await Promise.all(running);
      }
    },
  };
}

/** Of requests that can't be read; 'status --node' shows all. */
const MOST_TOLD = 10;
/** For those that are set aside. */
const LOOK_AGAIN_MS = 60_000;

interface Serving {
  readonly ways: AgentWays;
  readonly runs: Runs;
  readonly watches: Places;
  readonly pace: Pace;
}

function inboxOf(principal: string, { ways, runs, watches, pace }: Serving): Part {
  const { consul, deps, prefix, node } = ways;
  return {
    name: `requests of ${principal}`,
    run: async (signal) => {
      const open: OpenRequests = new Map();
      const attended = new Map<string, Changing<Attended>>();
      const looks = places(MOST_LOOKS);
      const over = new AbortController();
      const ends = AbortSignal.any([signal, over.signal]);
      const running = new Set<Promise<void>>();
      const choice = chooser();
      let asideCount = 0;
      const setAside = ({ ref }: OpenRequest, why: string) => {
        if (!choice.setAside(ref.id, deps.clock.now())) return;
        asideCount += 1;
        if (asideCount > MOST_TOLD) return;
        const all = asideCount === MOST_TOLD ? `${why}; there may be more of these` : why;
        deps.emit({ event: 'request', job: jobText(ref), step: 'unreadable', why: all });
      };
      const readers = logReaders({ ways, principal, pace }, ends);
      const begin = (request: Attended) => {
        const { id } = request.ref;
        const one = changing(request);
        attended.set(id, one);
        let isAside = false;
        const seen = {
          read: () => choice.read(id),
          unreadable: (why: string) => {
            isAside = true;
            setAside(request, why);
          },
        };
        const work = attend({ ways, runs, request: one, watches, looks, ...seen }, ends)
          .catch(() => undefined)
          .finally(() => {
            running.delete(work);
            attended.delete(id);
            if (!isAside) open.delete(id);
            if (!ends.aborted) admit();
          });
        running.add(work);
      };
      // The others are attended to when older ones are gone: a flood must not take memory and connections.
      const admit = () => {
        for (const request of choice.chosen(open.values(), deps.clock.now()))
          if (!attended.has(request.ref.id)) begin(request);
      };
      const changed = (named: ReadonlySet<string>) => {
        for (const id of open.keys()) {
          if (named.has(id)) continue;
          const one = attended.get(id);
          // One whose pointer is gone looks once more, and ends.
          if (one) one.set(one.look().value);
          else open.delete(id);
        }
        choice.keep(named);
        runs.forgetOthers(principal, named);
        admit();
      };
      const lookAgain = async (): Promise<void> => {
        for (;;) {
          const leftMs = choice.dueMs() - deps.clock.now();
          await deps.clock.sleep(Math.max(1_000, Math.min(leftMs, LOOK_AGAIN_MS)), { signal: ends });
          if (choice.dueMs() <= deps.clock.now()) admit();
        }
      };
      running.add(lookAgain().catch(() => undefined));
      try {
        const inbox = { consul, clock: deps.clock, prefix, node, principal };
        await followInbox(inbox, { open, read: readers.hear, changed }, ends);
      } finally {
        over.abort();
        await Promise.all([...running, readers.ended()]);
      }
    },
  };
}
