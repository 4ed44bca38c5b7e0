/** Maintenance that an earlier run of the node left on: its good runs end it only where they name the same services. */
import type { Deps } from '../platform/deps.ts';
import { joinLeft } from '../lock/records.ts';
import type { LeftOn } from '../lock/records.ts';
import type { RunGate } from './gate-session.ts';
import type { HeldSlots } from './slots.ts';

/** Tells what this run will not end, from the claims that it came back to: without a word the node would stay out of service. */
export function tellLeftOn({ emit }: Deps, slots: HeldSlots, gate: RunGate | undefined): void {
  const left = slots.map(({ grant }) => grant.before?.maintenance).reduce(joinLeft, undefined);
  const stays = left && notEnded(left, gate);
  if (!stays) return;
  const { keys, run } = slots[0].grant.context;
  emit({
    event: 'maintenance-left',
    node: run.node,
    run: run.id,
    detail: {
      kind: 'by-earlier-run',
      prefix: keys.root,
      services: stays.services,
      isNode: stays.node === true,
      lacks: gate && !gate.changes ? 'agent' : 'service',
    },
  });
}

/** Undefined: nothing is left then. A gate at the node's own agent ends the maintenance of the whole node whatever it names. */
function notEnded(left: LeftOn, gate: RunGate | undefined): LeftOn | undefined {
  if (!gate?.changes) return left;
  const services = left.services.filter((service) => !gate.services.includes(service));
  return services.length > 0 ? { services } : undefined;
}
