/** The agent's own rights, as it knows them. */
import { principalsOf } from './known.ts';
import { servingOf } from './serving.ts';
import type { AgentWays } from './ways.ts';

/** Asks Consul for this agent's own rights, which may have changed. */
export async function askRights(
  { consul, deps, known, prefix, requests: choice }: AgentWays,
  signal: AbortSignal,
): Promise<void> {
  const principals = principalsOf(known.look().value.files);
  const serving = await servingOf(consul, { prefix, requests: choice, principals }, { signal });
  const { value } = known.look();
  if (JSON.stringify(serving) === JSON.stringify(value.serving)) return;
  if (serving.kind === 'refused') deps.emit({ event: 'agent-no-requests', why: serving.why });
  known.set({ ...value, serving });
}
