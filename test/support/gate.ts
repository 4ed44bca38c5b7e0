// The modules of the gate, as a test calls them: on a real agent, with real time.
import { onTestFinished } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import { connect } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { Deps } from '../../src/platform/deps.ts';
import type { NodeAgent } from '../../src/gate/maintenance.ts';
import { sentenceOf } from '../../src/events/sentence.ts';
import type { Agent } from './consul.ts';

export const never = new AbortController().signal;

/** What it says goes to `said`. */
export function gateEffects(env: Agent['env'], said: string[] = []): NodeAgent & { agent: NodeAgent } {
  const emit: Deps['emit'] = (event) => void said.push(sentenceOf(event).message);
  const consul = connect(consulSettings(env), { clock, emit });
  onTestFinished(() => consul.close());
  const self = () => ({ pid: process.pid, startTime: '', bootId: '' });
  const host = {
    self,
    bootId: '',
    startTime: () => undefined,
    hidden: () => false,
    place: () => Promise.resolve({ host: 'h' }),
    survivors: () => ({ pids: [], guarded: false }),
  };
  const deps: Deps = { clock, emit, random: Math.random, host };
  const agent = { consul, deps };
  return { ...agent, agent };
}
