/** Reports a wait for the health gate: which peers it waits for, once for each set of peers. */
import type { Deps } from '../platform/deps.ts';
import type { Verdict } from './decide.ts';
import { describeClosed, waitedFor } from './describe.ts';

/** Returns a function to call with the result of every look of a wait. `who` goes into the fields of its events. */
export function tellLooks(
  { emit }: Pick<Deps, 'emit'>,
  node: string,
  who: { readonly run?: string } = {},
): (verdicts: readonly Verdict[]) => void {
  let told = '';
  const unknown = new Set<string>();
  return (verdicts) => {
    for (const { service, because, open } of verdicts) {
      if (because !== 'nowhere' || !open || unknown.has(service)) continue;
      unknown.add(service);
      emit({ event: 'gate-nowhere', node, service, ...who });
    }
    const closed = verdicts.filter(({ open }) => !open);
    // Compare without the output of checks: it can change with every run of a check, and would cause too many log
    // lines.
    const now = closed
      .map(({ service, because, offline }) =>
        [service, because, ...offline.map((peer) => peer.node)].join(' '),
      )
      .join('; ');
    if (closed.length > 0 && now !== told) {
      const services = closed.map(({ service, because, offline }) => ({ service, because, offline }));
      const detail = { peers: waitedFor(closed), closed: describeClosed(closed, node) };
      emit({ event: 'gate-closed', node, ...who, services, detail });
    }
    if (closed.length === 0 && told !== '') emit({ event: 'gate-open', node, ...who });
    told = now;
  };
}
