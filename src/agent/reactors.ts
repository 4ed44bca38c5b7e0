/** Runs the triggers and hooks of a node: one loop, which looks at each whenever something has changed. */
import type { Consul } from '../consul/consul.ts';
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { reasonOf } from '../errors.ts';
import { createBell } from '../gate/bell.ts';
import { placeOf } from '../jobs/trigger.ts';
import { observed, reset } from '../jobs/trigger-cursor.ts';
import type { Deps } from '../platform/deps.ts';
import { sightsOf, step } from './reactor.ts';
import type { Asked, Reactor, Standing, Waits } from './reactor.ts';
import { followSights } from './sights.ts';
import type { Sights } from './sights.ts';
import { openCursors } from './stored-cursor.ts';
import type { StoredCursor } from './stored-cursor.ts';

export interface ReactorWays {
  readonly consul: Consul;
  readonly deps: Deps;
  readonly prefix: string;
  readonly node: string;
  readonly isPaused: () => boolean;
  /** The keys of cursors that an operator wants reset, each once. */
  readonly takeResets: () => readonly string[];
  /** Calls back whenever one of these two may have changed, until `signal` aborts. */
  readonly onChange: (ring: () => void, signal: AbortSignal) => void;
  /** Hears whenever a reactor begins to wait for something else. */
  readonly tell: (reactor: Reactor, waits: Waits) => void;
  /** Between two looks, in milliseconds; undefined: a second. */
  readonly paceMs?: number;
}

const RETRY: Growth = { shortestMs: 1_000, longestMs: 300_000 };

/** Until `signal` aborts. @throws RunlockError `forbidden`, `incompatible`, `usage`; the signal's reason. */
export async function runReactors(
  ways: ReactorWays,
  reactors: readonly Reactor[],
  signal: AbortSignal,
): Promise<never> {
  const { consul, deps, prefix, node, isPaused, takeResets, onChange, tell } = ways;
  const { clock, emit, random } = deps;
  const cursors = openCursors(consul, prefix, node);
  const bell = createBell(clock);
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  const options = { signal: either };
  let sights: Sights = new Map();
  let hasRung = false;
  const ring = () => {
    hasRung = true;
    bell.ring();
  };

  const perform = async (reactor: Reactor, standing: Standing, asked: Omit<Asked, 'turned'>) => {
    const turned = new Set<string>();
    standing.turned = turned;
    let failed = true;
    let why: string | undefined;
    try {
      const acted = await reactor.act({ ...asked, turned }, either);
      failed = acted.kind === 'failed';
      if (acted.kind === 'failed') ({ why } = acted);
    } catch (error) {
      why = reasonOf(error);
      either.throwIfAborted();
      emit({ event: 'reactor-failed', reactor: reactor.name, detail: { fault: reasonOf(error) } });
    }
    standing.stored = await cursors.read(reactor.key, options);
    standing.failures = failed ? standing.failures + 1 : 0;
    standing.why = why;
    standing.retryMs = failed ? clock.monotonicMs() + growingMs(standing.failures - 1, RETRY, random) : 0;
    standing.settling = undefined;
    standing.turned = undefined;
    ring();
  };
  const write = async (standing: Standing, cursor: Parameters<typeof cursors.write>[1]) => {
    standing.writtenMs = clock.monotonicMs();
    const { stored } = standing;
    standing.stored =
      (await cursors.write(stored, cursor, options)) ?? (await cursors.read(stored.key, options));
  };
  /** A condition that turns false while the reactor acts is news to come as well. */
  const watchActing = async (reactor: Reactor, standing: Standing, turned: Set<string>) => {
    const seen = sightsOf(reactor, sights);
    for (const { name, holds } of seen) if (!holds) turned.add(name);
    // The run has written meanwhile.
    standing.stored = await cursors.read(reactor.key, options);
    const { read } = standing.stored;
    if (read.kind === 'newer') return;
    const cursor = observed(seen, placeOf(read, reactor.rules, clock.now()));
    if (cursor && turned.size > 0) await write(standing, cursor);
  };
  /** @returns after how many milliseconds to look again, at the latest. */
  const advance = async (reactor: Reactor, standing: Standing): Promise<number> => {
    const { turned } = standing;
    if (turned) {
      const isNews = sightsOf(reactor, sights).some(({ name, holds }) => !holds && !turned.has(name));
      if (isNews) await watchActing(reactor, standing, turned);
      return Infinity;
    }
    const before = JSON.stringify(standing.waits);
    const next = step(reactor, standing, { sights, clock });
    if (next.kind === 'write') {
      await write(standing, next.cursor);
      return 0;
    }
    if (next.kind === 'act')
      if (reactor.isPausable && isPaused()) standing.waits = { kind: 'held', by: 'paused' };
      else {
        standing.waits = { kind: 'acting' };
        perform(reactor, standing, next.asked).catch((error: unknown) => bell.fail(error));
      }
    if (JSON.stringify(standing.waits) !== before) tell(reactor, standing.waits);
    return next.kind === 'wait' ? next.dueInMs : Infinity;
  };

  try {
    const stored = await cursors.all(options);
    const all = reactors.map((reactor) => [reactor, standingOf(reactor, stored)] as const);
    onChange(ring, either);
    const conditions = reactors.flatMap(({ on }) => on);
    if (conditions.length > 0) {
      const heard = (now: Sights) => {
        sights = now;
        ring();
      };
      followSights({ consul, clock, prefix }, conditions, {
        heard,
        paceMs: ways.paceMs,
        signal: either,
      }).catch((error: unknown) => bell.fail(error));
    }
    for (;;) {
      hasRung = false;
      const resets = new Set(takeResets());
      let dueInMs = Infinity;
      for (const [reactor, standing] of all) {
        const { read } = standing.stored;
        if (resets.has(reactor.key) && read.kind === 'cursor') {
          await write(standing, reset(read.cursor));
          standing.retryMs = 0;
          standing.failures = 0;
        }
        dueInMs = Math.min(dueInMs, await advance(reactor, standing));
      }
      if (!isRung()) await bell.next(dueInMs, either);
    }
  } finally {
    over.abort();
  }

  function isRung() {
    return hasRung;
  }
}

function standingOf({ key }: Reactor, stored: ReadonlyMap<string, StoredCursor>): Standing {
  return {
    stored: stored.get(key) ?? { key, read: { kind: 'none' }, index: 0 },
    settling: undefined,
    turned: undefined,
    failures: 0,
    why: undefined,
    retryMs: 0,
    writtenMs: -Infinity,
    waits: { kind: 'quiet' },
  };
}
