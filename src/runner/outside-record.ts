/** Shows others, in Consul, for what a run waits without a slot. */
import { basename } from 'node:path';
import { showOutside } from '../lock/outside.ts';
import type { OutsideGate, OutsideTurn } from '../lock/outside.ts';
import type { Condition } from '../conditions/parse.ts';
import type { Consul } from '../consul/consul.ts';
import type { Bounds } from '../gate/decide.ts';
import type { Deps, Waiting } from '../platform/deps.ts';
import type { Setting } from '../state/setting.ts';

export interface WaitRecord {
  /** Has the record there while `wait` lasts, if that takes a while. */
  readonly during: <T>(waiting: Waiting, wait: () => Promise<T>) => Promise<T>;
  /** Resolves when the record is gone. Never rejects; takes a few seconds at most. */
  readonly gone: () => Promise<void>;
}

/** What the record says of the run. */
interface Recorded {
  readonly prefix: string;
  /** Their names. */
  readonly groups: readonly string[];
  readonly node: string | undefined;
  readonly run: string;
  readonly sessionTtlMs: number;
  readonly command: string;
  readonly when: readonly Condition[];
  readonly publish?: readonly Pick<Setting, 'path'>[] | undefined;
  readonly during?: readonly Pick<Setting, 'path'>[] | undefined;
  /** With the services that `auto` stands for. Undefined: the run has no gate. */
  readonly gate?: (Bounds & { readonly services: readonly string[] }) | undefined;
  /** The run that has the node's turn on this host. Undefined: the run does not wait for it. */
  readonly turn?: OutsideTurn | undefined;
}

export function recordWaits(deps: Deps & { readonly consul: Consul }, of: Recorded): WaitRecord {
  const {
    prefix,
    groups,
    node,
    run,
    sessionTtlMs,
    when,
    publish = [],
    during = [],
    gate,
    turn,
    command,
  } = of;
  const since = new Date(deps.clock.now()).toISOString();
  const record = {
    run,
    since,
    groups,
    when: when.map(({ text }) => text),
    ...(gate && { gate: toRecord(gate) }),
    ...(turn && { turn }),
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

function toRecord({
  services,
  maxOffline,
  minHealthy,
  allowUnknown,
}: NonNullable<Recorded['gate']>): OutsideGate {
  return {
    services,
    maxOffline,
    ...(minHealthy !== undefined && { minHealthy }),
    ...(allowUnknown && { allowUnknown: true }),
  };
}
