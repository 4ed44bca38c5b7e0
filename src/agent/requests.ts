/** Serves requests: one inbox for each principal that a task allows, and each open request by itself. */
import type { AgentWays } from './ways.ts';
import { attend } from './attend.ts';
import type { Attended } from './attend.ts';
import { followInbox } from './inbox.ts';
import type { OpenRequest, OpenRequests } from './inbox.ts';
import { principalsOf } from './known.ts';
import { MOST_OPEN } from './refusal.ts';
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

/** Those that may be open, and some that are refused because they are too many. */
const MOST_ATTENDED = MOST_OPEN + 20;

export function requests(ways: AgentWays): Part {
  const { runs, parts } = ways;
  return {
    name: 'requests',
    run: async (signal) => {
      const inboxes = new Map<string, AbortController>();
      const watches = places(MOST_WATCHES);
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
            const part = inboxOf(principal, { ways, runs, watches });
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

interface Serving {
  readonly ways: AgentWays;
  readonly runs: Runs;
  readonly watches: Places;
}

function inboxOf(principal: string, { ways, runs, watches }: Serving): Part {
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
      const begin = (request: OpenRequest) => {
        const { id } = request.ref;
        // Those that are attended to are all older.
        const one = changing({ ...request, older: attended.size });
        attended.set(id, one);
        const work = attend({ ways, runs, request: one, watches, looks }, ends)
          .catch(() => undefined)
          .finally(() => {
            running.delete(work);
            attended.delete(id);
            open.delete(id);
            if (!ends.aborted) admit();
          });
        running.add(work);
      };
      // The others are attended to when older ones are gone: a flood must not take memory and connections.
      const admit = () => {
        for (const request of open.values()) {
          if (attended.size >= MOST_ATTENDED) return;
          if (!attended.has(request.ref.id)) begin(request);
        }
      };
      const changed = (named: ReadonlySet<string>) => {
        for (const id of open.keys()) {
          if (named.has(id)) continue;
          const one = attended.get(id);
          // One whose pointer is gone looks once more, and ends.
          if (one) one.set(one.look().value);
          else open.delete(id);
        }
        runs.forgetOthers(principal, named);
        admit();
      };
      try {
        await followInbox({ consul, clock: deps.clock, prefix, node, principal }, { open, changed }, ends);
      } finally {
        over.abort();
        await Promise.all(running);
      }
    },
  };
}
