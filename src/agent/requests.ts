/** Serves requests: one inbox for each principal that a task allows, and each open request by itself. */
import { jobText } from '../jobs/keys.ts';
import type { AgentWays } from './ways.ts';
import { attend } from './attend.ts';
import { followInbox } from './inbox.ts';
import type { OpenRequest } from './inbox.ts';
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
/** Those that ask Consul for something at the same time. */
const MOST_LOOKS = 20;

/** Those that may be open, and some that are refused because they are too many. */
const MOST_ATTENDED = MOST_OPEN + 20;

export function requests(ways: AgentWays): Part {
  const { runs, parts } = ways;
  return {
    name: 'requests',
    run: async (signal) => {
      const inboxes = new Map<string, AbortController>();
      const [watches, looks] = [places(MOST_WATCHES), places(MOST_LOOKS)];
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
            const part = inboxOf(principal, { ways, runs, watches, looks });
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
  readonly looks: Places;
}

function inboxOf(principal: string, { ways, runs, watches, looks }: Serving): Part {
  const { consul, deps, prefix, node } = ways;
  return {
    name: `requests of ${principal}`,
    run: async (signal) => {
      const open = new Map<string, Changing<OpenRequest>>();
      const over = new AbortController();
      const ends = AbortSignal.any([signal, over.signal]);
      const running = new Set<Promise<void>>();
      const attended = (request: Changing<OpenRequest>) => {
        const { id } = request.look().value.ref;
        const work = attend({ ways, runs, request, watches, looks }, ends)
          .catch(() => undefined)
          .finally(() => {
            running.delete(work);
            if (open.get(id) === request) open.delete(id);
          });
        running.add(work);
      };
      try {
        await followInbox(
          { consul, clock: deps.clock, prefix, node, principal },
          (requests) => {
            // The others are attended to when older ones are gone: a flood must not take memory and connections.
            for (const request of requests.slice(0, MOST_ATTENDED)) {
              const known = open.get(request.ref.id);
              if (known && isSame(known.look().value, request)) continue;
              if (known) {
                known.set(request);
                continue;
              }
              const added = changing(request);
              open.set(request.ref.id, added);
              attended(added);
            }
            // One whose pointer is gone looks once more, and ends.
            const named = new Set(requests.map(({ ref }) => ref.id));
            for (const [id, request] of open) if (!named.has(id)) request.set(request.look().value);
            runs.forgetOthers(principal, named);
          },
          ends,
        );
      } finally {
        over.abort();
        await Promise.all(running);
      }
    },
  };
}

const isSame = (a: OpenRequest, b: OpenRequest) => a.change === b.change && jobText(a.ref) === jobText(b.ref);
