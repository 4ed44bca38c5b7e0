/** Maintenance that an earlier run of the node left on: its good runs end it only where they name the same services. */
import type { Deps } from '../../platform/deps.ts';
import { leaveHint } from '../../gate/describe.ts';
import { joinLeft } from '../../lock/records.ts';
import type { LeftOn } from '../../lock/records.ts';
import { leftOnText } from '../../view/leftover-maintenance.ts';
import type { RunGate } from './gate-session.ts';
import type { HeldSlots } from './slots.ts';

/** Says what this run will not end, from the claims that it came back to: without a word the node would stay out of service. */
export function sayLeftOn({ log }: Deps, slots: HeldSlots, gate: RunGate | undefined): void {
  const left = slots.map(({ grant }) => grant.before?.maintenance).reduce(joinLeft, undefined);
  const stays = left && notEnded(left, gate);
  if (!stays) return;
  const { context } = slots[0].grant;
  const { node, id: run } = context.run;
  const leave = leaveHint(context.keys.root, stays.services);
  const lacks = gate && !gate.changes ? `go to ${node}'s own agent with --agent` : 'name that with --service';
  log(
    'warning',
    `an earlier run left ${node} in maintenance (${leftOnText(stays)}), and this run does not ${lacks}: unless somebody has ended it, it stays, also after a good run; '${leave}' on ${node} ends it`,
    { event: 'maintenance-left', node, run },
  );
}

/** Undefined: nothing is left then. A gate at the node's own agent ends the maintenance of the whole node whatever it names. */
function notEnded(left: LeftOn, gate: RunGate | undefined): LeftOn | undefined {
  if (!gate?.changes) return left;
  const services = left.services.filter((service) => !gate.services.includes(service));
  return services.length > 0 ? { services } : undefined;
}
