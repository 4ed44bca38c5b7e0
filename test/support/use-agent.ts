// The agent of a test file: there while its tests run.
import { afterAll, beforeAll } from 'vitest';
import { startAgent } from './consul.ts';
import type { Agent } from './consul.ts';
import type { AgentOptions } from './consul-config.ts';

/**
 * Starts an agent before the tests of the file, or of the describe that calls this, and ends it after them. Using it
 * outside tests and hooks throws: nothing runs yet.
 */
export function useAgent(options?: AgentOptions): Agent {
  let agent: Agent | undefined;
  beforeAll(async () => {
    agent = await startAgent(options);
  });
  afterAll(() => agent?.[Symbol.asyncDispose]());
  return new Proxy({} as Agent, {
    get: (_, name) => {
      if (!agent) throw new Error(`no agent runs yet: use its ${String(name)} in a test or a hook`);
      return Reflect.get(agent, name) as unknown;
    },
  });
}
