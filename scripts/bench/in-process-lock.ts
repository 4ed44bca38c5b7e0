/** Runs of the project's own lock code, many in this one process, each with a session of its own. */
import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { readFileSync, readlinkSync } from 'node:fs';
import { clock } from '../../src/platform/deps.ts';
import { connect } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { Emit } from '../../src/events/events.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { acquire } from '../../src/lock/acquire.ts';
import { holdLease } from '../../src/lock/lease.ts';
import type { Lease } from '../../src/lock/lease.ts';
import { startTime } from '../../src/process/process-tree.ts';
import type { Agent } from '../../test/support/consul.ts';
import type { Crowd } from './in-process-crowd.ts';

/** Every run says that it is this process: its records are as long as real ones. */
export function processDeps(): Deps {
  const bootId = `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()} ${readlinkSync('/proc/self/ns/pid')}`;
  const self = { pid: process.pid, startTime: startTime(process.pid) ?? '', bootId };
  return {
    clock,
    random: Math.random,
    host: {
      self: () => self,
      bootId,
      startTime,
      hidden: () => false,
      place: () => Promise.resolve({ host: 'h' }),
      survivors: () => ({ pids: [], guarded: false }),
    },
    emit: () => undefined,
  };
}

export interface Held {
  readonly slot: number;
  /** Gives the slot back; throws when it stays behind. */
  leave(outcome?: 'succeeded' | 'failed'): Promise<void>;
}

export interface Group {
  /** Waits for a slot, and keeps watch over it from then on, as `exec` does; `onJoined` hears of the ticket. */
  enter(node: string, onJoined?: () => void): Promise<Held>;
  /** Everyone who still waits leaves the queue: `enter` rejects. */
  dismiss(): void;
  close(): void;
}

/** So long that no session is renewed meanwhile: it is the hand-over that counts here, not the waiting. */
const ttlMs = 600_000;

export function openGroup(agent: Agent, slots: number): Group {
  const deps = processDeps();
  const consul = connect(consulSettings(agent.env), { clock, emit: deps.emit });
  const dismissed = new AbortController();
  const { signal } = dismissed;
  const patience = new AbortController().signal;
  // All who wait listen to it.
  setMaxListeners(Infinity, signal);
  return {
    enter: async (node, onJoined) => {
      const run = { id: randomUUID(), command: 'chef-client', runner: deps.host.self(), slots } as const;
      const request = {
        prefix: 'runlock',
        group: 'prod/web',
        node,
        run: { ...run, hold: 'forever' as const },
      };
      const emit: Emit = ({ event }) => {
        if (event === 'queued') onJoined?.();
      };
      const waiting = { signal, patience, either: signal };
      const acquired = await acquire({ consul, deps: { ...deps, emit } }, { ...request, ttlMs }, waiting);
      if (acquired.kind !== 'granted')
        throw new Error(`${node}'s last run has not ended in time: is this machine busy with other things?`);
      const lease = holdLease(acquired.grant, { ttlMs, killAfterMs: 10_000 });
      return { slot: acquired.grant.slot, leave: (outcome = 'succeeded') => leave(lease, outcome) };
    },
    dismiss: () => dismissed.abort(new Error('dismissed')),
    close: () => consul.close(),
  };
}

async function leave(lease: Lease, outcome: 'succeeded' | 'failed'): Promise<void> {
  const exitCode = outcome === 'succeeded' ? 0 : 1;
  const back = await lease.release({ outcome, exitCode, waitedMs: 0, ranMs: 0 });
  if (back.kind !== 'released') throw new Error(`a slot was not given back: ${JSON.stringify(back)}`);
}

/** A crowd for one slot. */
export function lockCrowd(agent: Agent): Crowd {
  const group = openGroup(agent, 1);
  return {
    ...group,
    enter: async (node, onJoined) => {
      const held = await group.enter(node, onJoined);
      return () => held.leave();
    },
  };
}
