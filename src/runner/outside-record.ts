/** Shows others, in Consul, for what a run waits without a slot. */
import { basename } from 'node:path';
import { showOutside } from '../lock/outside.ts';
import type { OutsideGate } from '../lock/outside.ts';
import type { Waiting } from '../platform/deps.ts';
import type { ExecDeps, ExecOptions, GateChoice } from './options.ts';

export interface WaitRecord {
  /** Has the record there while `wait` lasts, if that takes a while. */
  readonly during: <T>(waiting: Waiting, wait: () => Promise<T>) => Promise<T>;
  /** Resolves when the record is gone. Never rejects; takes a few seconds at most. */
  readonly gone: () => Promise<void>;
}

/** @param services those that the gate is about; undefined: the run has no gate. */
export function recordWaits(
  deps: ExecDeps,
  options: ExecOptions,
  { run, services }: { readonly run: string; readonly services: readonly string[] | undefined },
): WaitRecord {
  const { prefix, groups, node, sessionTtlMs, gate, when = [], publish = [], during = [], command } = options;
  const since = new Date(deps.clock.now()).toISOString();
  const record = {
    run,
    since,
    groups: groups.map(({ group }) => group),
    when: when.map(({ text }) => text),
    ...(gate && services && { gate: toRecord(gate, services) }),
    publish: publish.map(({ path }) => path),
    during: during.map(({ path }) => path),
    command: basename(command),
  };
  // Nothing but the record hangs on its session, so it is renewed half as often as that of a slot.
  const ttlMs = Math.min(LONGEST_TTL_MS, 2 * sessionTtlMs);
  let gone: Promise<unknown> = Promise.resolve();
  let waits = 0;
  return {
    during: async (waiting, wait) => {
      if (waiting.patience.aborted) return wait();
      const tries = waits > 0 && { tries: waits };
      waits += 1;
      const shown = showOutside(
        { consul: deps.consul, deps },
        { prefix, node, ttlMs, record: { ...record, ...tries } },
      );
      try {
        return await wait();
      } finally {
        // Not awaited: the run goes on.
        gone = Promise.all([gone, shown.end()]);
      }
    },
    gone: () => gone.then(() => undefined),
  };
}

/** As Consul allows. */
const LONGEST_TTL_MS = 86_400_000;

function toRecord(
  { maxOffline, minHealthy, allowUnknown }: GateChoice,
  services: readonly string[],
): OutsideGate {
  return {
    services,
    maxOffline,
    ...(minHealthy !== undefined && { minHealthy }),
    ...(allowUnknown && { allowUnknown: true }),
  };
}
